# ADE20K's 150 classes (SceneParsing), crops of 512 pixels, 8 GPUs x 2 = 16 images per
# step; the pipeline of DeepMIM, LocalMIM and the lightweight study, that of
# mmsegmentation.
# data_root has images/{training,validation} and annotations/{training,validation}, as
# ADEChallengeData2016.zip unpacks.
data_root = "data/ade/ADEChallengeData2016/"
crop_size = (512, 512)

train_pipeline = [
    dict(type="LoadImageFromFile"),
    # As the data set asks, reduce_zero_label: label 0, "other", becomes 255, which is
    # ignored; 1 to 150 become 0 to 149.
    dict(type="LoadAnnotations"),
    dict(
        type="RandomResize",
        scale=(2048, 512),
        ratio_range=(0.5, 2.0),
        keep_ratio=True,
    ),
    dict(type="RandomCrop", crop_size=crop_size, cat_max_ratio=0.75),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PhotoMetricDistortion"),
    dict(type="PackSegInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(2048, 512), keep_ratio=True),
    # Behind the resize: predictions are resized to the labels.
    dict(type="LoadAnnotations"),
    dict(type="PackSegInputs"),
]
# Six scales, each flipped and not, of the configs named `-ms`.
tta_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(
        type="TestTimeAug",
        transforms=[
            [
                dict(type="Resize", scale=(1024, 256), keep_ratio=True),
                dict(type="Resize", scale=(1536, 384), keep_ratio=True),
                dict(type="Resize", scale=(2048, 512), keep_ratio=True),
                dict(type="Resize", scale=(2560, 640), keep_ratio=True),
                dict(type="Resize", scale=(3072, 768), keep_ratio=True),
                dict(type="Resize", scale=(3584, 896), keep_ratio=True),
            ],
            [
                dict(type="RandomFlip", prob=0.0, direction="horizontal"),
                dict(type="RandomFlip", prob=1.0, direction="horizontal"),
            ],
            # Not with images that have no labels, as in MMSegInferencer.
            [
                dict(
                    type="WherePresent",
                    key="seg_map_path",
                    transforms=[dict(type="LoadAnnotations")],
                )
            ],
            [dict(type="PackSegInputs")],
        ],
    ),
]

train_dataloader = dict(
    batch_size=2,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        type="ADE20KDataset",
        data_root=data_root,
        data_prefix=dict(
            img_path="images/training", seg_map_path="annotations/training"
        ),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="ADE20KDataset",
        data_root=data_root,
        data_prefix=dict(
            img_path="images/validation", seg_map_path="annotations/validation"
        ),
        pipeline=test_pipeline,
    ),
)
val_evaluator = dict(type="IoUMetric", iou_metrics=["mIoU"])
test_dataloader = val_dataloader
test_evaluator = val_evaluator
