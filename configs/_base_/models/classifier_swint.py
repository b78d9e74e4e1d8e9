# A classifier on the Swin-Tiny of the lightweight studies: width 48 (not 96), heads of
# 16 channels.
_base_ = "./classifier_vitt.py"

model = dict(
    backbone=dict(
        _delete_=True,
        type="SwinTransformer",
        arch=dict(embed_dims=48, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24)),
        img_size=224,
        drop_path_rate=0.0,
        init_cfg=dict(type="Pretrained", checkpoint=None, prefix="backbone."),
    ),
    neck=dict(type="GlobalAveragePooling"),
    head=dict(in_channels=384),
)
