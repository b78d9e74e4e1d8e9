# The fine-tuning schedule of MAE (appendix A.1, table 9) and its released code: AdamW,
# lr = 5e-4 * batch / 256, 5 epochs of linear warm-up, then half a cosine to the end of
# the run, both per iteration. Layers of the encoder learn the slower the shallower they
# are. Vectors, class token and position embedding are not decayed.
optim_wrapper = dict(
    type="OptimWrapper",
    constructor="LayerDecayOptimWrapperConstructor",
    optimizer=dict(
        type="AdamW", lr=5e-4 * 1024 / 256, betas=(0.9, 0.999), weight_decay=0.05
    ),
    paramwise_cfg=dict(
        layer_decay_rate=0.65,
        flat_decay_mult=0.0,
        bias_decay_mult=0.0,
        custom_keys={
            "backbone.cls_token": dict(decay_mult=0.0),
            "backbone.pos_embed": dict(decay_mult=0.0),
        },
    ),
)
warmup_epochs = 5
param_scheduler = [
    dict(
        type="LinearLR",
        start_factor=1e-9,
        begin=0,
        end=warmup_epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
    dict(
        type="CosineAnnealingLR",
        begin=warmup_epochs,
        # 1e-6 of a peak of 2e-3, before the layer decay, as in the official code.
        eta_min_ratio=1e-6 / (5e-4 * 1024 / 256),
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=100, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=1024)
