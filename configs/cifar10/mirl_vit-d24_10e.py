# MIRL on CIFAR-10, 24 blocks in six segments of 4, one cross-attention block for each:
# the other half of the depth study of mae_vit-d24_10e.py.
# Paper: MIRL, https://arxiv.org/abs/2309.14136, section 3; the size is ours.
# Expected: unknown, not run to the end here.
# Global batch size: 128; smaller batches are accumulated to it.
# Command: python tools/train.py configs/cifar10/mirl_vit-d24_10e.py
_base_ = "../_base_/recipes/cifar10.py"

model = dict(
    type="MIRL",
    backbone=dict(
        arch=dict(embed_dims=96, num_layers=24, num_heads=4, feedforward_channels=384),
        taps=(3, 7, 11, 15, 19),
        tap_embedding=True,
    ),
    neck=dict(type="MIRLDecoder"),
    head=dict(type="ResidualPairHead"),
)
