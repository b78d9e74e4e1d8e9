# Images for pre-training, 224 pixels: ImageNet, or any folder of unlabelled images with
#   --cfg-options data_root=/path/to/images
# Augmentation: crop of 20-100 % of the area and horizontal flip, as MAE (appendix A.1)
# and DeepMIM.
data_root = "data/imagenet/"

train_pipeline = [
    # EXIF orientation is ignored, as in the official code.
    dict(type="LoadImageFromFile", color_type="color_ignore_orientation"),
    dict(type="TensorRandomResizedCrop", scale=224, crop_ratio_range=(0.2, 1.0)),
    # Drawn here, done on the device.
    dict(type="DrawFlip", prob=0.5),
    dict(type="PackPretrainInputs"),
]

# 32 GPUs x 128 = 4096 images per step; fewer GPUs accumulate.
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
        # The train folder below data_root where there is one, else all of data_root.
        dataset=dict(
            type="UnlabelledImages", data_root=data_root, pipeline=train_pipeline
        ),
    ),
)

# How features of whole images are extracted, by KNNHook, FeatureExtractor and
# tools/embed.py.
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
# For KNNHook, which is off unless a config adds it: labelled images, one sub-folder of
# train/ and val/ per class, as ImageNet's. Those of train/ are compared with, those of
# val/ classified.
knn_train_dataloader = dict(
    batch_size=128,
    num_workers=8,
    dataset=dict(
        type="ClassFolders",
        data_root=data_root,
        split="train",
        pipeline=test_pipeline,
    ),
)
knn_val_dataloader = dict(
    batch_size=128,
    num_workers=8,
    dataset=dict(
        type="ClassFolders",
        data_root=data_root,
        split="val",
        pipeline=test_pipeline,
    ),
)
