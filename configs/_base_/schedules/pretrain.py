# The pre-training schedule of MAE and DeepMIM: AdamW, lr = 1.5e-4 * batch / 256,
# 40 epochs of linear warm-up, then half a cosine to 0 at the end of the run, both per
# iteration. Configs set train_cfg.max_epochs.
# No weight decay for one-dimensional parameters and biases; class and mask tokens are
# decayed, as in the official code.
optim_wrapper = dict(
    type="OptimWrapper",
    constructor="LayerDecayOptimWrapperConstructor",
    optimizer=dict(
        type="AdamW", lr=1.5e-4 * 4096 / 256, betas=(0.9, 0.95), weight_decay=0.05
    ),
    paramwise_cfg=dict(flat_decay_mult=0.0, bias_decay_mult=0.0),
)
warmup_epochs = 40
param_scheduler = [
    dict(
        type="LinearLR",
        start_factor=1e-9,
        begin=0,
        end=warmup_epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
    # Without an end it lasts to the end of the run.
    dict(
        type="CosineAnnealingLR",
        begin=warmup_epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=300)
auto_scale_lr = dict(base_batch_size=4096)
