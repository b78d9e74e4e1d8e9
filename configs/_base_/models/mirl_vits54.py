# MIRL, ViT-S-54/16: six segments of 9 blocks, 12 heads of 32 channels (DeiT-S has 6 of
# 64), decoders of one block as wide as the encoder.
_base_ = "./mirl_vitb48.py"

model = dict(
    backbone=dict(
        arch=dict(
            embed_dims=384, num_layers=54, num_heads=12, feedforward_channels=1536
        ),
        taps=(8, 17, 26, 35, 44),
    ),
    neck=dict(embed_dims=384, depth=1, num_heads=12),
)
