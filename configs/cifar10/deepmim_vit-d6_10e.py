# DeepMIM on CIFAR-10 (32x32, patch 4), a ViT of 6 blocks and width 128, 10 epochs
# of every second training image.
# No paper's experiment: a small run that shows learning on a CPU within minutes. The
# k-NN accuracy on the 10,000 test images is measured before training (random
# initialisation) and after the last epoch.
# Data: data/cifar10/{train,test}/<class>/*.jpg (or .png), one folder per class.
# Measured, seeds 0 to 2: 29.1, 30.3, 29.9 % before, 40.7, 39.9, 39.6 % after (25 to 46
# minutes each on one busy core of an AMD EPYC; classes voted by 10,000 images).
# Global batch size: 128; the lr scales to the real one.
# Command: python tools/train.py configs/cifar10/deepmim_vit-d6_10e.py
_base_ = ["../_base_/default_runtime.py"]

data_root = "data/cifar10/"

model = dict(
    type="DeepMIM",
    data_preprocessor=dict(
        type="MIMDataPreprocessor",
        mean=[125.3, 122.9, 113.9],
        std=[62.5, 61.9, 66.5],
        bgr_to_rgb=True,
    ),
    mask_sampler=dict(type="RandomPatchMask", mask_ratio=0.75),
    backbone=dict(
        type="MIMVisionTransformer",
        arch=dict(embed_dims=128, num_layers=6, num_heads=4, feedforward_channels=512),
        img_size=32,
        patch_size=4,
        taps=(2, 3, 4),
    ),
    neck=dict(type="MIMDecoder", embed_dims=64, depth=1, num_heads=4),
    target_generator=dict(type="PixelTarget", norm_pix=True),
    head=dict(type="ReconstructionHead", criterion="L2"),
)

train_pipeline = [
    dict(type="LoadImageFromFile", color_type="color_ignore_orientation"),
    dict(type="TensorRandomResizedCrop", scale=32, crop_ratio_range=(0.2, 1.0)),
    dict(type="DrawFlip", prob=0.5),
    dict(type="PackPretrainInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile", color_type="color_ignore_orientation"),
    dict(type="PackInputs"),
]
train_dataloader = dict(
    batch_size=128,
    num_workers=1,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type="EpochSampler", shuffle=True),
    collate_fn=dict(type="default_collate"),
    dataset=dict(
        type="SeededDataset",
        dataset=dict(
            type="UnlabelledImages",
            data_root=data_root,
            data_prefix="train",
            # Files are sorted by class: every second one leaves the classes balanced.
            indices=list(range(0, 50000, 2)),
            pipeline=train_pipeline,
        ),
    ),
)

optim_wrapper = dict(
    type="OptimWrapper",
    constructor="LayerDecayOptimWrapperConstructor",
    optimizer=dict(type="AdamW", lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05),
    paramwise_cfg=dict(flat_decay_mult=0.0, bias_decay_mult=0.0),
)
param_scheduler = [
    dict(
        type="LinearLR",
        start_factor=1e-3,
        begin=0,
        end=2,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
    dict(
        type="CosineAnnealingLR",
        begin=2,
        end=10,
        T_max=8,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=10)
auto_scale_lr = dict(base_batch_size=128)
default_hooks = dict(checkpoint=dict(type="CheckpointHook", interval=10))
custom_hooks = [
    dict(type="ThroughputHook"),
    dict(type="CheckInputHook"),
    dict(type="CorruptImageHook"),
    dict(type="ProgressBarHook"),
    dict(type="ReconstructionHook", interval=10),
    dict(
        type="KNNHook",
        interval=10,
        at_start=True,
        train_dataloader=dict(
            batch_size=250,
            num_workers=1,
            dataset=dict(
                type="CustomDataset",
                data_root=data_root,
                data_prefix="train",
                indices=list(range(0, 50000, 5)),
                pipeline=test_pipeline,
            ),
        ),
        val_dataloader=dict(
            batch_size=250,
            num_workers=1,
            dataset=dict(
                type="CustomDataset",
                data_root=data_root,
                data_prefix="test",
                pipeline=test_pipeline,
            ),
        ),
    ),
]
