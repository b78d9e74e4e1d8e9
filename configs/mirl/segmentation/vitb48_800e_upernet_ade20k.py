# UperNet on ADE20K from MIRL's ViT-B-48/16 (800 epochs), 160k iterations at 512.
# Paper: MIRL, https://arxiv.org/abs/2309.14136. Neither its recipe nor its results on
# ADE20K are known to us. The recipe is ours: DeepMIM's for ViT-B with CLIP targets (lr
# 5e-5, layer decay 0.9), with maps of four evenly spaced blocks and a layer decay that
# leaves the first block as much as there. Not reproduced here.
# Global batch size: 16 (8 GPUs x 2); the lr scales to the real one.
# Command: tools/dist_train.sh \
#   configs/mirl/segmentation/vitb48_800e_upernet_ade20k.py 8 \
#   --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
# Less memory: vitb48_800e_upernet-fsdp_ade20k.py.
_base_ = [
    "../../_base_/models/upernet_vitb48.py",
    "../../_base_/datasets/ade20k_512.py",
    "../../_base_/recipes/segmentation_160k.py",
]

pretrained = "work_dirs/mirl/vitb48_800e/epoch_800.pth"

model = dict(backbone=dict(init_cfg=dict(checkpoint=pretrained)))
optim_wrapper = dict(
    optimizer=dict(lr=5e-5), paramwise_cfg=dict(layer_decay_rate=0.9 ** (13 / 49))
)
