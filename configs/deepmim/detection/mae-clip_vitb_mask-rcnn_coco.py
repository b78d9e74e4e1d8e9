# Mask R-CNN on COCO from DeepMIM-CLIP, ViT-B/16, 100 epochs at 1024 pixels.
# Paper: DeepMIM, https://arxiv.org/abs/2303.08817, reports 52.8 box AP on COCO, of
# which neither detector, recipe nor checkpoint is known. The recipe is ours, that of
# mae_vitb_mask-rcnn_coco.py. Not reproduced here.
# Global batch size: 64 (32 GPUs x 2); kept on fewer GPUs by accumulation, with as many
# more iterations.
# Command: GPUS=32 tools/slurm_train.sh PARTITION JOB \
#   configs/deepmim/detection/mae-clip_vitb_mask-rcnn_coco.py WORK_DIR \
#   --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
_base_ = [
    "../../_base_/models/mask-rcnn_vitdet.py",
    "../../_base_/datasets/coco_lsj-1024.py",
    "../../_base_/recipes/vitdet_100e.py",
]

# The checkpoint of the pre-training, ours as it is, or the official one.
pretrained = "work_dirs/deepmim/mae-clip_vitb_1600e/epoch_1600.pth"

model = dict(backbone=dict(init_cfg=dict(checkpoint=pretrained)))
