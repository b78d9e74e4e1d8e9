# Mask R-CNN on COCO from MAE, ViT-B/16, 100 epochs at 1024 pixels.
# Paper: MAE, https://arxiv.org/abs/2111.06377. The recipe is not its own, but ViTDet's
# published one (https://arxiv.org/abs/2203.16527: 51.6 box AP, 45.9 mask AP from MAE's
# ViT-B). Not reproduced here.
# Global batch size: 64 (32 GPUs x 2); kept on fewer GPUs by accumulation, with as many
# more iterations.
# Command: GPUS=32 tools/slurm_train.sh PARTITION JOB \
#   configs/mae/detection/vitb_mask-rcnn_coco.py WORK_DIR \
#   --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
_base_ = [
    "../../_base_/models/mask-rcnn_vitdet.py",
    "../../_base_/datasets/coco_lsj-1024.py",
    "../../_base_/recipes/vitdet_100e.py",
]

# The checkpoint of the pre-training, ours as it is, or the official one.
pretrained = "work_dirs/mae/vitb_1600e/epoch_1600.pth"

model = dict(backbone=dict(init_cfg=dict(checkpoint=pretrained)))
