# ViTDet's published schedule (https://arxiv.org/abs/2203.16527, appendix A.2, and its
# released code): 184,375 iterations of 64 images, 100 epochs of COCO; warm-up over 250
# iterations, learning rate divided by 10 after 8/9 and 26/27 of them. Norms and the
# position embedding have no weight decay.
optim_wrapper = dict(
    type="OptimWrapper",
    constructor="LayerDecayOptimWrapperConstructor",
    optimizer=dict(type="AdamW", lr=1e-4, betas=(0.9, 0.999), weight_decay=0.1),
    paramwise_cfg=dict(
        layer_decay_rate=0.7,
        custom_keys={
            "backbone.pos_embed": dict(decay_mult=0.0),
            # Every norm: ln1 and ln2 of the blocks, ln of pyramid and heads.
            ".ln": dict(decay_mult=0.0),
        },
    ),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, begin=0, end=250, by_epoch=False),
    dict(
        type="MultiStepLR",
        begin=0,
        milestones=[163889, 177546],
        gamma=0.1,
        by_epoch=False,
    ),
]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=184375, val_interval=20000)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
auto_scale_lr = dict(base_batch_size=64)
