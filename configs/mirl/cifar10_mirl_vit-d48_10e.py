# MIRL on CIFAR-10, 48 blocks in six segments of 8: the depth study of
# cifar10_mirl_vit-d24_10e.py, twice as deep. Expected: unknown, not run to the end
# here.
# Global batch size: 128; the lr scales to the real one.
# Command: python tools/train.py configs/mirl/cifar10_mirl_vit-d48_10e.py
_base_ = "./cifar10_mirl_vit-d24_10e.py"

model = dict(
    backbone=dict(arch=dict(num_layers=48), taps=(7, 15, 23, 31, 39)),
)
