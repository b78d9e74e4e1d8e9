# The 3x schedule of Swin Transformer's detection (https://arxiv.org/abs/2103.14030,
# section 4.2): 36 epochs of 16 images per step, learning rate divided by 10 after 27
# and 33 of them. Norms and relative positions have no weight decay.
optim_wrapper = dict(
    type="OptimWrapper",
    constructor="LayerDecayOptimWrapperConstructor",
    optimizer=dict(type="AdamW", lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(
        custom_keys={
            "relative_position_bias_table": dict(decay_mult=0.0),
            "norm": dict(decay_mult=0.0),
        }
    ),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, begin=0, end=1000, by_epoch=False),
    dict(
        type="MultiStepLR",
        begin=0,
        milestones=[27, 33],
        gamma=0.1,
        by_epoch=True,
    ),
]
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=36, val_interval=1)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
auto_scale_lr = dict(base_batch_size=16)
