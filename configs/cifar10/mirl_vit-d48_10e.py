# MIRL on CIFAR-10, 48 blocks in six segments of 8: the depth study of
# mirl_vit-d24_10e.py, twice as deep. Expected: unknown, not run to the end
# here.
# Global batch size: 128; smaller batches are accumulated to it.
# Command: python tools/train.py configs/cifar10/mirl_vit-d48_10e.py
_base_ = "../_base_/recipes/cifar10.py"

model = dict(
    type="MIRL",
    backbone=dict(
        arch=dict(embed_dims=96, num_layers=48, num_heads=4, feedforward_channels=384),
        taps=(7, 15, 23, 31, 39),
        tap_embedding=True,
    ),
    neck=dict(type="MIRLDecoder"),
    head=dict(type="ResidualPairHead"),
)
