# Pre-training of thin ViTs on CIFAR-10 (32x32, patch 4), MAE unless a config says
# otherwise: 10 epochs of every second training image, the k-NN accuracy on the 10,000
# test images before training and after the last epoch.
# Data: data/cifar10/{train,test}/<class>/*.jpg (or .png), one folder per class.
_base_ = "../default_runtime.py"

data_root = "data/cifar10/"

model = dict(
    type="MaskedImageModel",
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
        # Further blocks to supervise, zero-based.
        taps=(),
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
warmup_epochs = 2
param_scheduler = [
    dict(
        type="LinearLR",
        start_factor=1e-3,
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
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=10)
auto_scale_lr = dict(base_batch_size=128)
default_hooks = dict(checkpoint=dict(type="AtomicCheckpointHook", interval=10))
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
