# Semantic FPN on the Hiera-Tiny of the lightweight studies, four maps of 256 channels.
_base_ = "./semantic-fpn_vitt.py"

model = dict(
    backbone=dict(
        _delete_=True,
        type="mmpretrain.Hiera",
        arch=dict(embed_dims=46, depths=(1, 2, 7, 2), num_heads=1),
        img_size=512,
        q_pool=3,
        out_type="featmap",
        drop_path_rate=0.1,
        init_cfg=dict(type="Pretrained", checkpoint=None, prefix="backbone."),
    ),
    neck=dict(
        _delete_=True,
        type="FPN",
        in_channels=[46, 92, 184, 368],
        out_channels=256,
        num_outs=4,
    ),
    decode_head=dict(in_channels=[256, 256, 256, 256]),
)
