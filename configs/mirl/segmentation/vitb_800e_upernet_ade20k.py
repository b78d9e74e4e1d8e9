# UperNet on ADE20K from MIRL's ViT-B/16 (800 epochs), 160k iterations at 512.
# Paper: MIRL, https://arxiv.org/abs/2309.14136. Neither its recipe nor its results on
# ADE20K are known to us. The recipe is ours: that of vitb48_800e_upernet_ade20k.py with
# a layer decay for 12 blocks. Not reproduced here.
# Global batch size: 16 (8 GPUs x 2); the lr scales to the real one.
# Command: tools/dist_train.sh \
#   configs/mirl/segmentation/vitb_800e_upernet_ade20k.py 8 \
#   --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
_base_ = [
    "../../_base_/models/upernet_vitb.py",
    "../../_base_/datasets/ade20k_512.py",
    "../../_base_/recipes/segmentation_160k.py",
]

pretrained = "work_dirs/mirl/vitb_800e/epoch_800.pth"

model = dict(
    backbone=dict(
        out_indices=(2, 5, 8, 11), with_cp=False, init_cfg=dict(checkpoint=pretrained)
    )
)
optim_wrapper = dict(optimizer=dict(lr=5e-5))
