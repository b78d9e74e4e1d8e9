# A classifier on the ViT-Tiny/16 of the lightweight studies (width 192, 12 heads, not
# 3), regularised as MAE's: drop path, mixup, CutMix and label smoothing.
_base_ = "./classifier_vitb.py"

model = dict(
    backbone=dict(
        arch=dict(
            _delete_=True,
            embed_dims=192,
            num_layers=12,
            num_heads=12,
            feedforward_channels=768,
        )
    ),
    head=dict(in_channels=192, init_cfg=dict(std=0.02)),
)
