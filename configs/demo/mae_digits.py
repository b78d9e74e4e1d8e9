# The demo's MAE: scikit-learn's 1,797 handwritten digits at 16x16, a ViT of 6 blocks.
# A demonstration on the CPU, no paper's experiment; `make demo` runs it.
# Global batch size: 128.
_base_ = ["../_base_/default_runtime.py"]

data_root = "work_dirs/demo/data/"

model = dict(
    type="MaskedImageModel",
    data_preprocessor=dict(type="MIMDataPreprocessor", mean=[77.8], std=[83.5]),
    mask_sampler=dict(type="RandomPatchMask", mask_ratio=0.75),
    backbone=dict(
        type="MIMVisionTransformer",
        arch=dict(embed_dims=96, num_layers=6, num_heads=4, feedforward_channels=384),
        img_size=16,
        patch_size=4,
        in_channels=1,
    ),
    neck=dict(type="MIMDecoder", embed_dims=64, depth=2, num_heads=4),
    target_generator=dict(type="PixelTarget", norm_pix=False),
    head=dict(type="ReconstructionHead", criterion="L2"),
)

train_pipeline = [
    dict(type="LoadImageFromFile", color_type="grayscale"),
    dict(type="TensorRandomResizedCrop", scale=16, crop_ratio_range=(0.6, 1.0)),
    dict(type="PackPretrainInputs"),
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
            type="UnlabelledImages", data_root=data_root, pipeline=train_pipeline
        ),
    ),
)

optim_wrapper = dict(
    type="OptimWrapper",
    constructor="LayerDecayOptimWrapperConstructor",
    optimizer=dict(type="AdamW", lr=1.5e-3, betas=(0.9, 0.95), weight_decay=0.05),
    paramwise_cfg=dict(flat_decay_mult=0.0, bias_decay_mult=0.0),
)
warmup_epochs = 10
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
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=100)
auto_scale_lr = dict(base_batch_size=128)
default_hooks = dict(
    logger=dict(type="LoggerHook", interval=110),
    checkpoint=dict(type="AtomicCheckpointHook", interval=50, max_keep_ckpts=1),
)
