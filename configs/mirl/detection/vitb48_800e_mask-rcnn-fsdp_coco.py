# Mask R-CNN on COCO from MIRL's ViT-B-48/16 with parameters, gradients and optimiser
# states shared out over the GPUs (fully sharded data parallel); else the recipe, ours,
# of vitb48_800e_mask-rcnn_coco.py. Paper: MIRL, https://arxiv.org/abs/2309.14136. Not
# reproduced here.
# Global batch size: 64 (32 GPUs x 2); kept on fewer GPUs by accumulation, with as many
# more iterations.
# Command: GPUS=32 tools/slurm_train.sh PARTITION JOB \
#   configs/mirl/detection/vitb48_800e_mask-rcnn-fsdp_coco.py WORK_DIR \
#   --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
# It needs two GPUs at least, and was not run by us on several; that blocks are sharded,
# a small model of the same parts trains and its checkpoint is whole is tested.
_base_ = [
    "../../_base_/models/mask-rcnn_vitdet.py",
    "../../_base_/datasets/coco_lsj-1024.py",
    "../../_base_/recipes/vitdet_100e.py",
    "../../_base_/models/mirl_vitb48_vitdet.py",
    "../../_base_/fsdp.py",
]

pretrained = "work_dirs/mirl/vitb48_800e/epoch_800.pth"

model = dict(
    backbone=dict(**_base_.mirl_vitdet, init_cfg=dict(checkpoint=pretrained)),
    neck=dict(in_channels=_base_.mirl_vitdet.arch.embed_dims),
)
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=_base_.mirl_layer_decay))
