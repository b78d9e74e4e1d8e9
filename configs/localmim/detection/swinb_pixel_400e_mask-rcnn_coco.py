# Mask R-CNN on COCO from LocalMIM Swin-B (pixels, 400 epochs), 36 epochs.
# Paper: LocalMIM, https://arxiv.org/abs/2303.05251, has Mask R-CNN results; its recipe
# and figures for this backbone are not known to us. The recipe is ours, that of Swin
# Transformer's Mask R-CNN (https://arxiv.org/abs/2103.14030): multi-scale, 3x, AdamW,
# drop path 0.3. Not reproduced here.
# Global batch size: 16 (8 GPUs x 2); kept on fewer GPUs by accumulation.
# Command: tools/dist_train.sh \
#   configs/localmim/detection/swinb_pixel_400e_mask-rcnn_coco.py 8 \
#   --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
_base_ = [
    "../../_base_/models/mask-rcnn_swinb.py",
    "../../_base_/datasets/coco_ms-crop.py",
    "../../_base_/recipes/coco_36e.py",
]

pretrained = "work_dirs/localmim/swinb_pixel_400e/epoch_400.pth"

model = dict(backbone=dict(init_cfg=dict(checkpoint=pretrained)))
