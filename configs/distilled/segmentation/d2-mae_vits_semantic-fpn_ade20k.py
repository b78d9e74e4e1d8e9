# Semantic FPN on ADE20K from D2-MAE's ViT-Small/16 (12 heads), 160k iterations at 512.
# Paper: https://arxiv.org/abs/2404.12210, which has no segmentation with ViT-Small. The
# recipe is ours: that of its ViT-Tiny (d2-mae_vitt_semantic-fpn_ade20k.py) with maps
# twice as wide. Not reproduced here.
# Global batch size: 16 (8 GPUs x 2); the lr scales to the real one.
# Command: tools/dist_train.sh \
#   configs/distilled/segmentation/d2-mae_vits_semantic-fpn_ade20k.py 8 \
#   --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
_base_ = "./d2-mae_vitt_semantic-fpn_ade20k.py"

# The checkpoint of the pre-training, ours as it is, or the official one.
pretrained = "work_dirs/d2-mae_vits_400e/epoch_400.pth"

model = dict(
    backbone=dict(
        arch=dict(embed_dims=384, feedforward_channels=1536),
        init_cfg=dict(checkpoint=pretrained),
    ),
    neck=dict(in_channels=384, out_channels=96),
    decode_head=dict(in_channels=[96, 96, 96, 96]),
)
