# A classifier on the Hiera-Tiny of the lightweight studies: width 46, 12 blocks in four
# stages.
_base_ = "./classifier_vitt.py"

model = dict(
    backbone=dict(
        _delete_=True,
        # One more pooling than in pre-training, of the same weights.
        type="Hiera",
        arch=dict(embed_dims=46, depths=(1, 2, 7, 2), num_heads=1),
        img_size=224,
        init_cfg=dict(type="Pretrained", checkpoint=None, prefix="backbone."),
    ),
    head=dict(
        in_channels=368,
        # A thousandth of what other layers have, bias included.
        init_cfg=dict(type="TruncNormal", layer="Linear", std=2e-5, bias=2e-5),
    ),
)
