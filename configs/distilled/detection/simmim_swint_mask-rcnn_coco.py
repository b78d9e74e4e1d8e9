# Mask R-CNN on COCO from SimMIM's Swin-Tiny of width 48, FPN, 36 epochs.
# Paper: https://arxiv.org/abs/2404.12210, which has no detection with Swin. The recipe
# is ours: that of LocalMIM's Swin-B (swinb_hog_400e_mask-rcnn_coco.py), with drop path
# 0.1. Not reproduced here.
# Global batch size: 16 (8 GPUs x 2); kept on fewer GPUs by accumulation.
# Command: tools/dist_train.sh \
#   configs/distilled/detection/simmim_swint_mask-rcnn_coco.py 8 \
#   --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
_base_ = [
    "../../_base_/models/mask-rcnn_swinb.py",
    "../../_base_/datasets/coco_ms-crop.py",
    "../../_base_/recipes/coco_36e.py",
]

pretrained = "work_dirs/distilled/simmim_swint_400e/epoch_400.pth"

model = dict(
    backbone=dict(
        arch=dict(embed_dims=48, depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24]),
        drop_path_rate=0.1,
        norm_eps=1e-5,
        # The mask token has no use here.
        init_cfg=dict(checkpoint=pretrained),
    ),
    neck=dict(in_channels=[48, 96, 192, 384]),
)
