# Labelled ImageNet for fine-tuning, 224 pixels, 8 GPUs x 128 = 1024 images per step; or
# classes of one's own, in train/CLASS/ and val/CLASS/ of any data_root. tools/train.py
# gives the classifier as many classes as there are folders.
# Augmentation of MAE's and DeepMIM's released code: crop of 8-100 % of the area, flip,
# RandAugment (9, 0.5) with increasing severity, random erasing 0.25 with noise (MAE's
# fine-tuning page, not its table 9); no colour jitter. Mixup and CutMix belong to the
# model. Test: short edge 256, bicubic, centre 224.
data_root = "data/imagenet/"

train_pipeline = [
    # EXIF orientation is ignored, as in the official code.
    dict(type="LoadImageFromFile", color_type="color_ignore_orientation"),
    dict(type="TensorRandomResizedCrop", scale=224),
    dict(type="RandomFlip", prob=0.5, direction="horizontal"),
    # timm's rand-m9-mstd0.5-inc1. Images are BGR here: mean and std in that order.
    dict(
        type="RandAugment",
        policies="timm_increasing",
        num_policies=2,
        total_level=10,
        magnitude_level=9,
        magnitude_std=0.5,
        hparams=dict(pad_val=[104, 116, 124], interpolation="bicubic"),
    ),
    dict(
        type="RandomErasing",
        erase_prob=0.25,
        mode="rand",
        min_area_ratio=0.02,
        max_area_ratio=1 / 3,
        fill_color=[103.53, 116.28, 123.675],
        fill_std=[57.375, 57.12, 58.395],
    ),
    dict(type="PackInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile", color_type="color_ignore_orientation"),
    dict(
        type="ResizeEdge",
        scale=256,
        edge="short",
        backend="pillow",
        interpolation="bicubic",
    ),
    dict(type="CenterCrop", crop_size=224),
    dict(type="PackInputs"),
]

train_dataloader = dict(
    batch_size=128,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    drop_last=True,
    collate_fn=dict(type="default_collate"),
    sampler=dict(type="EpochSampler", shuffle=True),
    dataset=dict(
        type="SeededDataset",
        # The run stops when more than 1 % of the images cannot be read.
        max_corrupt_ratio=0.01,
        dataset=dict(
            type="ClassFolders",
            data_root=data_root,
            split="train",
            pipeline=train_pipeline,
        ),
    ),
)
val_dataloader = dict(
    batch_size=128,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    collate_fn=dict(type="default_collate"),
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="ClassFolders", data_root=data_root, split="val", pipeline=test_pipeline
    ),
)
val_evaluator = dict(type="Accuracy", topk=(1, 5))
test_dataloader = val_dataloader
test_evaluator = val_evaluator
