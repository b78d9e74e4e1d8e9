# UperNet on ADE20K from MAE, ViT-B/16, 160k iterations at 512.
# Paper: MAE, https://arxiv.org/abs/2111.06377; recipe of DeepMIM's released code, with
# the learning rate and layer decay of its MAE.
# Expected: 48.1 mIoU (as DeepMIM's paper, https://arxiv.org/abs/2303.08817, has it).
# Not reproduced here.
# Global batch size: 16 (8 GPUs x 2); the lr scales to the real one.
# Command: tools/dist_train.sh \
#   configs/mae/segmentation/vitb_upernet_ade20k.py 8 \
#   --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
_base_ = [
    "../../_base_/models/upernet_vitb.py",
    "../../_base_/datasets/ade20k_512.py",
    "../../_base_/recipes/segmentation_160k.py",
]

# The checkpoint of the pre-training, ours as it is, or the official one.
pretrained = "work_dirs/mae/vitb_1600e/epoch_1600.pth"

model = dict(backbone=dict(init_cfg=dict(checkpoint=pretrained)))
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.65))
