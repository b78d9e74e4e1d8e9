# The training of OSTrack as the lightweight studies have it: 300 epochs of 60,000
# pairs, 128 per step, AdamW, the encoder at a tenth of the head's rate, a tenth of both
# after 240 epochs. Model and data are to be added.
_base_ = ["../default_runtime.py"]

optim_wrapper = dict(
    type="OptimWrapper",
    constructor="LayerDecayOptimWrapperConstructor",
    optimizer=dict(type="AdamW", lr=4e-4, weight_decay=1e-4),
    paramwise_cfg=dict(custom_keys={"backbone": dict(lr_mult=0.1)}),
    clip_grad=dict(max_norm=0.1),
)
param_scheduler = [
    dict(type="MultiStepLR", milestones=[240], gamma=0.1, by_epoch=True),
]
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=300, val_interval=20)
auto_scale_lr = dict(base_batch_size=128)

custom_hooks = [
    *_base_.custom_hooks,
    # All search tokens up to epoch 20, then along half a cosine to 70 % at epoch 100.
    dict(type="KeepRateHook", start=20, end=100, final=0.7),
]
default_hooks = dict(checkpoint=dict(interval=5, max_keep_ckpts=3))
