# Mask R-CNN on COCO from MAE's ViT-Tiny/16 (12 heads), 100 epochs at 640 pixels.
# Paper: https://arxiv.org/abs/2404.12210; recipe and results of its official code.
# Expected: 39.9 box AP, 35.4 mask AP (the paper's). Not reproduced here.
# Global batch size: 64 (8 GPUs x 8); the lr scales to the real one.
# Command: tools/dist_train.sh \
#   configs/distilled/detection/mae_vitt_mask-rcnn_coco.py 8 \
#   --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
# Known deviations: those of d2-mae_vitt_mask-rcnn_coco.py.
_base_ = "./d2-mae_vitt_mask-rcnn_coco.py"

# The checkpoint of the pre-training, ours as it is, or the official one.
pretrained = "work_dirs/mae_vitt_400e/epoch_400.pth"

model = dict(backbone=dict(init_cfg=dict(checkpoint=pretrained)))
