# Semantic FPN on ViT-S/16: that of semantic-fpn_vitt.py, wider.
_base_ = "./semantic-fpn_vitt.py"

model = dict(
    backbone=dict(arch=dict(embed_dims=384, feedforward_channels=1536)),
    neck=dict(in_channels=384, out_channels=96),
    decode_head=dict(in_channels=[96, 96, 96, 96]),
)
