# UperNet on ADE20K from a DeepMIM or MAE pixel model, ViT-L/16, 160k iterations at 512.
# Paper: DeepMIM, https://arxiv.org/abs/2303.08817, which has no ViT-L. The recipe is
# ours: that of mae_vitb_upernet_ade20k.py with maps of the blocks at the same relative
# depths, a layer decay that leaves the first block as much as there and drop path 0.2.
# Not reproduced here.
# Global batch size: 16 (8 GPUs x 2); the lr scales to the real one.
# Command: tools/dist_train.sh \
#   configs/deepmim/segmentation/mae_vitl_upernet_ade20k.py 8 \
#   --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
_base_ = [
    "../../_base_/models/upernet_vitl.py",
    "../../_base_/datasets/ade20k_512.py",
    "../../_base_/recipes/segmentation_160k.py",
]

pretrained = "work_dirs/deepmim/mae_vitl_1600e/epoch_1600.pth"

model = dict(backbone=dict(init_cfg=dict(checkpoint=pretrained)))
# 0.65 over 12 blocks is as much as this over 24.
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.65 ** (13 / 25)))
