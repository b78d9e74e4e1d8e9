# Fine-tuning on ImageNet as the lightweight studies do it: 300 epochs, a peak of 4e-3,
# RandAugment at 10 without random erasing, validated every 10 epochs.
_base_ = [
    "../datasets/imagenet_finetune.py",
    "../schedules/finetune.py",
    "../default_runtime.py",
]

train_pipeline = [
    dict(type="LoadImageFromFile", color_type="color_ignore_orientation"),
    dict(type="TensorRandomResizedCrop", scale=224),
    dict(type="RandomFlip", prob=0.5, direction="horizontal"),
    dict(
        type="RandAugment",
        policies="timm_increasing",
        num_policies=2,
        total_level=10,
        magnitude_level=10,
        magnitude_std=0.5,
        hparams=dict(pad_val=[104, 116, 124], interpolation="bicubic"),
    ),
    dict(type="PackInputs"),
]
train_dataloader = dict(
    sampler=dict(seed=0), dataset=dict(dataset=dict(pipeline=train_pipeline))
)

optim_wrapper = dict(
    optimizer=dict(lr=1e-3 * 1024 / 256), paramwise_cfg=dict(layer_decay_rate=0.85)
)
param_scheduler = [
    _base_.param_scheduler[0],
    # 1e-6 of a peak of 4e-3, before the layer decay, as in the official code.
    {**_base_.param_scheduler[1], "eta_min_ratio": 1e-6 / (1e-3 * 1024 / 256)},
]
train_cfg = dict(max_epochs=300, val_interval=10)
randomness = dict(seed=0, diff_rank_seed=True)
default_hooks = dict(checkpoint=dict(interval=1, max_keep_ckpts=3, save_best="auto"))
