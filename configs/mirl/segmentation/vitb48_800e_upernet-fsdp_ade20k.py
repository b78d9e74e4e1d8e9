# vitb48_800e_upernet_ade20k.py with parameters, gradients and the optimiser's state
# sharded over the GPUs (FSDP), block by block, for GPUs with less memory.
# Paper: MIRL, https://arxiv.org/abs/2309.14136; the recipe is ours, see there.
# Global batch size: 16 (8 GPUs x 2); the lr scales to the real one.
# Command: tools/dist_train.sh \
#   configs/mirl/segmentation/vitb48_800e_upernet-fsdp_ade20k.py 8 \
#   --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
# It needs two GPUs at least, and was not run by us on several; that blocks are sharded,
# a small model of the same parts trains and its checkpoint is whole is tested.
_base_ = [
    "../../_base_/models/upernet_vitb48.py",
    "../../_base_/datasets/ade20k_512.py",
    "../../_base_/recipes/segmentation_160k.py",
    "../../_base_/fsdp.py",
]

pretrained = "work_dirs/mirl/vitb48_800e/epoch_800.pth"

model = dict(backbone=dict(init_cfg=dict(checkpoint=pretrained)))
optim_wrapper = dict(
    optimizer=dict(lr=5e-5), paramwise_cfg=dict(layer_decay_rate=0.9 ** (13 / 49))
)
