# Pre-training of SimMIM as the lightweight study has it: 400 epochs, 256 images per
# GPU, crops of 67-100 % of the area, a constant rate after 10 epochs of warm-up.
_base_ = [
    "../datasets/imagenet_pretrain.py",
    "../schedules/pretrain.py",
    "../default_runtime.py",
]

train_pipeline = [
    dict(type="LoadImageFromFile", color_type="color_ignore_orientation"),
    dict(
        type="TensorRandomResizedCrop",
        scale=224,
        crop_ratio_range=(0.67, 1.0),
        interpolation="bilinear",
    ),
    dict(type="DrawFlip", prob=0.5),
    dict(type="PackPretrainInputs"),
]
train_dataloader = dict(
    batch_size=256, dataset=dict(dataset=dict(pipeline=train_pipeline))
)

optim_wrapper = dict(
    optimizer=dict(lr=4e-4 * 2048 / 2048, betas=(0.9, 0.99)),
    clip_grad=dict(max_norm=5.0),
)
warmup_epochs = 10
param_scheduler = [
    dict(
        type="LinearLR",
        start_factor=2e-6 / 4e-4,
        begin=0,
        end=warmup_epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
    dict(
        type="ConstantLR",
        factor=1.0,
        begin=warmup_epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(max_epochs=400)
auto_scale_lr = dict(base_batch_size=2048)
custom_hooks = [
    *_base_.custom_hooks,
    # work_dir/reconstructions/epoch_020.png and so on, and the visualizer's backends.
    dict(type="ReconstructionHook", interval=20),
]
