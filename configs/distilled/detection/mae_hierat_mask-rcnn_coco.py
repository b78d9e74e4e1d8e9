# Mask R-CNN on COCO from MAE's Hiera-Tiny (width 46), FPN, 100 epochs at 640 pixels.
# Paper: https://arxiv.org/abs/2404.12210, which has no detection with Hiera. The recipe
# is ours, that of mae-lite_hierat_mask-rcnn_coco.py. Not reproduced here.
# Global batch size: 64 (8 GPUs x 8); the lr scales to the real one.
# Command: tools/dist_train.sh \
#   configs/distilled/detection/mae_hierat_mask-rcnn_coco.py 8 \
#   --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
_base_ = "./mae-lite_hierat_mask-rcnn_coco.py"

# The checkpoint of the pre-training, ours as it is, or the official one.
pretrained = "work_dirs/mae_hierat_400e/epoch_400.pth"

model = dict(backbone=dict(init_cfg=dict(checkpoint=pretrained)))
