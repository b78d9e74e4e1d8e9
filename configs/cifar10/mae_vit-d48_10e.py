# MAE on CIFAR-10, 48 blocks: the depth study of mae_vit-d24_10e.py, twice as
# deep. Expected: unknown, not run to the end here.
# Global batch size: 128; smaller batches are accumulated to it.
# Command: python tools/train.py configs/cifar10/mae_vit-d48_10e.py
_base_ = "../_base_/recipes/cifar10.py"

model = dict(
    backbone=dict(
        arch=dict(embed_dims=96, num_layers=48, num_heads=4, feedforward_channels=384)
    ),
    neck=dict(depth=6),
)
