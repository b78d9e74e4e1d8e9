# Mask R-CNN on COCO from D-MAE's ViT-Tiny/16 (12 heads), 100 epochs at 640 pixels.
# Paper: https://arxiv.org/abs/2404.12210; recipe and results of its official code.
# Expected: 42.3 box AP, 37.3 mask AP (the paper's). Not reproduced here.
# Global batch size: 64 (8 GPUs x 8); kept on fewer GPUs by accumulation.
# Command: tools/dist_train.sh \
#   configs/distilled/detection/mae-lite_vitt_mask-rcnn_coco.py 8 \
#   --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
# Known deviations: those of d2-mae_vitt_mask-rcnn_coco.py.
_base_ = [
    "../../_base_/models/mask-rcnn_vitdet.py",
    "../../_base_/datasets/coco_lsj-640.py",
    "../../_base_/recipes/vitdet_100e.py",
]

pretrained = "work_dirs/distilled/mae-lite_vitt_400e/epoch_400.pth"

model = dict(
    data_preprocessor=dict(pad_size_divisor=640),
    backbone=dict(
        arch=dict(embed_dims=192, feedforward_channels=768),
        img_size=640,
        drop_path_rate=0.0,
        init_cfg=dict(checkpoint=pretrained),
    ),
    neck=dict(in_channels=192),
)
optim_wrapper = dict(
    optimizer=dict(weight_decay=0.05), paramwise_cfg=dict(layer_decay_rate=1.0)
)
