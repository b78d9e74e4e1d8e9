# UperNet on MIRL's ViT-B-48/16: the last block of each quarter.
_base_ = "./upernet_vitb.py"

model = dict(
    backbone=dict(
        arch=dict(num_layers=48),
        out_indices=(11, 23, 35, 47),
        # Recompute every block in the backward pass: 48 of them fill a GPU.
        with_cp=True,
    )
)
