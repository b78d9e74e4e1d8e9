# UperNet on ADE20K from LocalMIM's ViT-L/16 (HOG, 800 epochs), 160k iterations at 512.
# Paper: LocalMIM, https://arxiv.org/abs/2303.05251; the released code has no
# segmentation with ViT-L. The recipe is ours: that of vitb_hog_1600e_upernet_ade20k.py
# with a layer decay that leaves the first block as much as there and drop path 0.2. Not
# reproduced here.
# Global batch size: 16 (8 GPUs x 2); the lr scales to the real one.
# Command: tools/dist_train.sh \
#   configs/localmim/segmentation/vitl_hog_800e_upernet_ade20k.py 8 \
#   --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
_base_ = [
    "../../_base_/models/upernet_vitl.py",
    "../../_base_/datasets/ade20k_512.py",
    "../../_base_/recipes/segmentation_160k.py",
]

pretrained = "work_dirs/localmim/vitl_hog_800e/epoch_800.pth"

model = dict(
    # The blocks that pre-training supervised.
    backbone=dict(out_indices=(1, 3, 21, 23), init_cfg=dict(checkpoint=pretrained)),
    neck=dict(pool="avg"),
)
# 0.65 over 12 blocks is as much as this over 24.
optim_wrapper = dict(
    optimizer=dict(lr=4e-4), paramwise_cfg=dict(layer_decay_rate=0.65 ** (13 / 25))
)
