# Supervised training of ViT-Tiny/16 (12 heads) with relative positions from scratch,
# 1000 epochs on ImageNet-1K: what segmentation from supervised weights starts from.
# Papers: https://arxiv.org/abs/2205.14443 and its extension,
# https://arxiv.org/abs/2404.12210; results table of the official repository.
# Expected: unknown (no top-1 is published). Not reproduced here.
# Global batch size: 1024 (8 GPUs x 128); the lr scales to the real one.
# Command: tools/dist_train.sh \
#   configs/distilled/benchmarks/vitt_scratch-rpe-1000e_in1k.py 8
# Unverified: that no layer decay is used; layers that start from nothing learn at one
# rate here, else it is the improved recipe of fine-tuning.
_base_ = [
    "../../_base_/models/classifier_vitt-rpe.py",
    "../../_base_/recipes/finetune_lightweight.py",
]

model = dict(backbone=dict(init_cfg=None))
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=1.0))
train_cfg = dict(max_epochs=1000)
