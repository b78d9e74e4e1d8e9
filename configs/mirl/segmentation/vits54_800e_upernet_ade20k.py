# UperNet on ADE20K from MIRL's ViT-S-54/16 (800 epochs), 160k iterations at 512.
# Paper: MIRL, https://arxiv.org/abs/2309.14136. Neither its recipe nor its results on
# ADE20K are known to us. The recipe is ours: that of vitb48_800e_upernet_ade20k.py in
# narrower heads, with a layer decay for 54 blocks. Not reproduced here.
# Global batch size: 16 (8 GPUs x 2); the lr scales to the real one.
# Command: tools/dist_train.sh \
#   configs/mirl/segmentation/vits54_800e_upernet_ade20k.py 8 \
#   --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
_base_ = "./vitb48_800e_upernet_ade20k.py"

pretrained = "work_dirs/vits54_800e/epoch_800.pth"

model = dict(
    backbone=dict(
        # 12 heads, as in pre-training.
        arch=dict(embed_dims=384, num_layers=54, feedforward_channels=1536),
        out_indices=(13, 26, 40, 53),
        init_cfg=dict(checkpoint=pretrained),
    ),
    neck=dict(in_channels=384),
    decode_head=dict(in_channels=[384, 384, 384, 384], channels=512),
    auxiliary_head=dict(in_channels=384),
)
# 0.9 over 12 blocks is as much as this over 54.
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.9 ** (13 / 55)))
