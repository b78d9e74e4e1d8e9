# Mask R-CNN on COCO from a DeepMIM pixel model, ViT-S/16, 100 epochs at 1024.
# Paper: DeepMIM, https://arxiv.org/abs/2303.08817, which has no ViT-S. The recipe is
# ours, that of mae_vitb_mask-rcnn_coco.py. Not reproduced here.
# Global batch size: 64 (32 GPUs x 2); kept on fewer GPUs by accumulation, with as many
# more iterations.
# Command: GPUS=32 tools/slurm_train.sh PARTITION JOB \
#   configs/deepmim/detection/mae_vits_mask-rcnn_coco.py WORK_DIR \
#   --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
_base_ = [
    "../../_base_/models/mask-rcnn_vitdet.py",
    "../../_base_/datasets/coco_lsj-1024.py",
    "../../_base_/recipes/vitdet_100e.py",
]

# The checkpoint of the pre-training, ours as it is.
pretrained = "work_dirs/deepmim/mae_vits_1600e/epoch_1600.pth"

model = dict(
    backbone=dict(
        arch=dict(embed_dims=384, num_heads=6, feedforward_channels=1536),
        init_cfg=dict(checkpoint=pretrained),
    ),
    neck=dict(in_channels=384),
)
