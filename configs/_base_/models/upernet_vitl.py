# UperNet on ViT-L/16: that of upernet_vitb.py, wider.
_base_ = "./upernet_vitb.py"

model = dict(
    backbone=dict(
        arch=dict(
            embed_dims=1024, num_layers=24, num_heads=16, feedforward_channels=4096
        ),
        # The same relative depths.
        out_indices=(7, 11, 15, 23),
        drop_path_rate=0.2,
    ),
    neck=dict(in_channels=1024),
    decode_head=dict(in_channels=[1024, 1024, 1024, 1024], channels=1024),
    auxiliary_head=dict(in_channels=1024),
)
