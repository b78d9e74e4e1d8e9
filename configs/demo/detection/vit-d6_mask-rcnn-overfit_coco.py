# A small ViTDet Mask R-CNN learns 16 images of COCO by heart, on a CPU.
# No paper's experiment, ours: it shows that boxes and masks are learnt. The first 16
# images with objects at 256 pixels, no augmentation, a ViT of 6 blocks and width 128
# from random initialisation; AP on these images.
# Measured once (seed 0): box AP 0.15, 0.43, 0.60, 0.74, 0.79, 0.82 and mask AP 0.11,
# 0.32, 0.46, 0.60, 0.64, 0.65 after 250, 500, ... 1500 iterations, in 52 minutes on
# half a busy core of an AMD EPYC; no figure of any other images.
# Data: data/coco as below, or any folder in COCO's layout by data_root=...
# Global batch size: 2; smaller batches are accumulated to it.
# Command: OMP_NUM_THREADS=1 python tools/train.py \
#   configs/demo/detection/vit-d6_mask-rcnn-overfit_coco.py
_base_ = [
    "../../_base_/models/mask-rcnn_vitdet.py",
    "../../_base_/recipes/vitdet_100e.py",
]

data_root = "data/coco/"

model = dict(
    data_preprocessor=dict(pad_size_divisor=256),
    backbone=dict(
        arch=dict(embed_dims=128, num_layers=6, num_heads=4, feedforward_channels=512),
        img_size=256,
        pretrain_img_size=256,
        window_size=4,
        global_blocks=(2, 5),
        drop_path_rate=0.0,
        init_cfg=None,
    ),
    neck=dict(in_channels=128, out_channels=64),
    rpn_head=dict(num_convs=1, in_channels=64, feat_channels=64),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=64),
        bbox_head=dict(in_channels=64, conv_out_channels=64, fc_out_channels=256),
        mask_roi_extractor=dict(out_channels=64),
        mask_head=dict(num_convs=2, in_channels=64, conv_out_channels=64),
    ),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=500, max_per_img=200),
        rcnn=dict(sampler=dict(num=64)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=500, max_per_img=200)),
)

test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(256, 256), keep_ratio=True),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(
        type="PackDetInputs",
        meta_keys=(
            "img_id",
            "img_path",
            "ori_shape",
            "img_shape",
            "scale_factor",
            # The metric takes the objects from here: a file has those of all images.
            "instances",
        ),
    ),
]
train_pipeline = [
    dict(type="LoadImageFromFile"),
    # In this order, so that boxes and masks are resized, too.
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(type="Resize", scale=(256, 256), keep_ratio=True),
    dict(type="PackDetInputs"),
]
dataset = dict(
    type="CocoDataset",
    data_root=data_root,
    ann_file="annotations/instances_train2017.json",
    data_prefix=dict(img="train2017/"),
    filter_cfg=dict(filter_empty_gt=True, min_size=32),
    indices=16,
)
train_dataloader = dict(
    batch_size=2,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(pipeline=train_pipeline, **dataset),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(pipeline=test_pipeline, **dataset),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="CocoMetric", metric=["bbox", "segm"])
test_evaluator = val_evaluator

optim_wrapper = dict(
    _delete_=True,
    type="OptimWrapper",
    constructor="LayerDecayOptimWrapperConstructor",
    optimizer=dict(type="AdamW", lr=1e-3, betas=(0.9, 0.999), weight_decay=0.01),
    clip_grad=dict(max_norm=1.0),
)
warmup_iters = 100
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, begin=0, end=warmup_iters, by_epoch=False),
    dict(
        type="CosineAnnealingLR",
        begin=warmup_iters,
        eta_min_ratio=0.01,
        by_epoch=False,
    ),
]
train_cfg = dict(max_iters=1500, val_interval=250)
auto_scale_lr = dict(base_batch_size=2)
default_hooks = dict(checkpoint=dict(interval=250, max_keep_ckpts=1))
