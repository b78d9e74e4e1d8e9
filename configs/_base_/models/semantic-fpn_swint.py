# Semantic FPN on the Swin-Tiny of the lightweight studies, four maps of 256 channels.
_base_ = "./semantic-fpn_vitt.py"

model = dict(
    backbone=dict(
        _delete_=True,
        type="mmpretrain.MIMSwinTransformer",
        arch=dict(embed_dims=48, depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24]),
        img_size=512,
        window_size=7,
        # Maps are padded to windows.
        pad_small_map=True,
        out_indices=(0, 1, 2, 3),
        drop_path_rate=0.1,
        # The mask token has no use here.
        init_cfg=dict(type="Pretrained", checkpoint=None, prefix="backbone."),
    ),
    neck=dict(
        _delete_=True,
        type="FPN",
        in_channels=[48, 96, 192, 384],
        out_channels=256,
        num_outs=4,
    ),
    decode_head=dict(in_channels=[256, 256, 256, 256]),
)
