# UperNet on MIRL's ViT-S-54/16: the last block of each quarter.
_base_ = "./upernet_vitb.py"

model = dict(
    backbone=dict(
        # 12 heads, as in pre-training.
        arch=dict(embed_dims=384, num_layers=54, feedforward_channels=1536),
        out_indices=(13, 26, 40, 53),
        # Recompute every block in the backward pass: 54 of them fill a GPU.
        with_cp=True,
    ),
    neck=dict(in_channels=384),
    decode_head=dict(in_channels=[384, 384, 384, 384], channels=512),
    auxiliary_head=dict(in_channels=384),
)
