# Mask R-CNN on COCO from LocalMIM Swin-L with windows of 14 (HOG, 800 epochs), 36
# epochs.
# Paper: LocalMIM, https://arxiv.org/abs/2303.05251; it is not known to us whether it
# has detection with this backbone. The recipe is ours, that of
# swinb_hog_400e_mask-rcnn_coco.py. Not reproduced here.
# Global batch size: 16 (8 GPUs x 2); kept on fewer GPUs by accumulation.
# Command: tools/dist_train.sh \
#   configs/localmim/detection/swinl_hog_800e_mask-rcnn_coco.py 8 \
#   --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
_base_ = [
    "../../_base_/models/mask-rcnn_swinb.py",
    "../../_base_/datasets/coco_ms-crop.py",
    "../../_base_/recipes/coco_36e.py",
]

# The checkpoint of the pre-training, ours as it is, or the official one.
pretrained = "work_dirs/localmim/swinl_hog_800e/epoch_800.pth"

model = dict(
    backbone=dict(
        arch=dict(embed_dims=192, num_heads=[6, 12, 24, 48]),
        window_size=14,
        # As in pre-training, where the last stage's map has no more.
        stage_cfgs=[dict(), dict(), dict(), dict(window_size=7)],
        init_cfg=dict(checkpoint=pretrained),
    ),
    neck=dict(in_channels=[192, 384, 768, 1536]),
)
