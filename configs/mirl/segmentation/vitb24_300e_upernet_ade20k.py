# UperNet on ADE20K from MIRL's ViT-B-24/16 (300 epochs), 160k iterations at 512.
# Paper: MIRL, https://arxiv.org/abs/2309.14136. Neither its recipe nor its results on
# ADE20K are known to us. The recipe is ours: that of vitb48_800e_upernet_ade20k.py with
# a layer decay for 24 blocks. Not reproduced here.
# Global batch size: 16 (8 GPUs x 2); the lr scales to the real one.
# Command: tools/dist_train.sh \
#   configs/mirl/segmentation/vitb24_300e_upernet_ade20k.py 8 \
#   --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
_base_ = [
    "../../_base_/models/upernet_vitb.py",
    "../../_base_/datasets/ade20k_512.py",
    "../../_base_/recipes/segmentation_160k.py",
]

pretrained = "work_dirs/mirl/vitb24_300e/epoch_300.pth"

model = dict(
    backbone=dict(
        arch=dict(num_layers=24),
        out_indices=(5, 11, 17, 23),
        # Recompute every block in the backward pass.
        with_cp=True,
        init_cfg=dict(checkpoint=pretrained),
    )
)
optim_wrapper = dict(
    optimizer=dict(lr=5e-5), paramwise_cfg=dict(layer_decay_rate=0.9 ** (13 / 25))
)
