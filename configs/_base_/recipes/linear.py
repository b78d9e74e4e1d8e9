# Linear probing on ImageNet as MAE (appendix A.1, table 10): 8 GPUs x 2048 = 16384
# images per step, LARS, crops of 8-100 % of the area and flip, 90 epochs.
_base_ = ["../datasets/imagenet_finetune.py", "../default_runtime.py"]

train_pipeline = [
    dict(type="LoadImageFromFile", color_type="color_ignore_orientation"),
    dict(type="TensorRandomResizedCrop", scale=224),
    dict(type="RandomFlip", prob=0.5, direction="horizontal"),
    dict(type="PackInputs"),
]
train_dataloader = dict(
    batch_size=2048, dataset=dict(dataset=dict(pipeline=train_pipeline))
)

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="LARS", lr=0.1 * 16384 / 256, momentum=0.9, weight_decay=0.0),
    # As MAE's LARS, without a trust ratio for one-dimensional parameters.
    paramwise_cfg=dict(custom_keys={".bias": dict(lars_exclude=True)}),
)
warmup_epochs = 10
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
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=90, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=16384)
default_hooks = dict(checkpoint=dict(interval=1, max_keep_ckpts=3, save_best="auto"))
