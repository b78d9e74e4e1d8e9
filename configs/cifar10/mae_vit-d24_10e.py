# MAE on CIFAR-10 (32x32, patch 4), a thin ViT of 24 blocks and width 96, 10 epochs of
# every second training image: the control of the depth study.
# No paper's experiment: MIRL (https://arxiv.org/abs/2309.14136) says that masked image
# modelling trains the deep blocks of a plain ViT badly and that residual learning cures
# it. The four files {mae,mirl}_vit-d{24,48}_10e.py ask this at a size that runs
# on a CPU: same encoder, data and schedule, decoders of the same width and 6 blocks in
# all; the k-NN accuracy is measured before training and after the last epoch.
# Data: data/cifar10/{train,test}/<class>/*.jpg (or .png), one folder per class.
# Expected: unknown, not run to the end here.
# Global batch size: 128; smaller batches are accumulated to it.
# Command: python tools/train.py configs/cifar10/mae_vit-d24_10e.py
_base_ = "../_base_/recipes/cifar10.py"

model = dict(
    backbone=dict(
        arch=dict(embed_dims=96, num_layers=24, num_heads=4, feedforward_channels=384)
    ),
    neck=dict(depth=6),
)
