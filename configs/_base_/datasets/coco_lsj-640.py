# COCO 2017 instances, large-scale jitter at 640 pixels, the lightweight study's recipe
# (https://arxiv.org/abs/2404.12210, released code): flip, resize by 0.1 to 2.0, crop
# 640; the model pads. Test: the longer side 640. Else as at 1024 pixels.
_base_ = "./coco_lsj-1024.py"

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(type="RandomFlip", prob=0.5),
    dict(
        type="RandomResize",
        scale=(640, 640),
        ratio_range=(0.1, 2.0),
        keep_ratio=True,
    ),
    dict(
        type="RandomCrop",
        crop_size=(640, 640),
        recompute_bbox=True,
        allow_negative_crop=True,
    ),
    # Crops without an object are kept (which mmdet calls not keep_empty).
    dict(type="FilterAnnotations", min_gt_bbox_wh=(1e-2, 1e-2), keep_empty=False),
    dict(type="PackDetInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(640, 640), keep_ratio=True),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(
        type="PackDetInputs",
        meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor"),
    ),
]

train_dataloader = dict(batch_size=8, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
