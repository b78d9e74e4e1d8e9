# 160k iterations with AdamW, batch 16: linearly to zero, times a linear warm-up of 1500
# iterations from a millionth, as mmcv has it, in which DeepMIM and LocalMIM ran. Layers
# of the encoder learn the slower the shallower they are, everything outside its blocks
# and embeddings at the full rate. Vectors are not decayed; position embeddings, class
# token and tables of relative positions are (the released code means to spare the first
# two, and compares names that never match).
optim_wrapper = dict(
    type="OptimWrapper",
    constructor="LayerDecayOptimWrapperConstructor",
    optimizer=dict(type="AdamW", lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(layer_decay_rate=0.9, flat_decay_mult=0.0, bias_decay_mult=0.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-6, begin=0, end=1500, by_epoch=False),
    dict(type="PolyLR", power=1.0, eta_min=0.0, begin=0, by_epoch=False),
]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=160000, val_interval=16000)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
auto_scale_lr = dict(base_batch_size=16)
