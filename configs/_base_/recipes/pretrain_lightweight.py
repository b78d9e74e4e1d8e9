# Pre-training of the lightweight studies on ImageNet: 400 epochs, 512 images per GPU,
# crops of 8-100 % of the area in a random interpolation.
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
        crop_ratio_range=(0.08, 1.0),
        interpolation="random",
    ),
    dict(type="DrawFlip", prob=0.5),
    dict(type="PackPretrainInputs"),
]
train_dataloader = dict(
    batch_size=512, dataset=dict(dataset=dict(pipeline=train_pipeline))
)
train_cfg = dict(max_epochs=400)
custom_hooks = [
    *_base_.custom_hooks,
    # work_dir/reconstructions/epoch_020.png and so on, and the visualizer's backends.
    dict(type="ReconstructionHook", interval=20),
]
