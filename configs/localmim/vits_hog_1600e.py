# LocalMIM on HOG, ViT-S/16, 1600 epochs on ImageNet-1K: ours.
# Paper: Masked Image Modeling with Local Multi-Scale Reconstruction,
# https://arxiv.org/abs/2303.05251, whose code has this encoder (width 384, 6 heads),
# without a recipe: it is that of vitb_hog_1600e.py.
# Expected: nothing; no result of this model is published.
# Global batch size: 2048 (8 GPUs x 256, as ViT-B); the lr scales to the real one.
# Command: tools/dist_train.sh configs/localmim/vits_hog_1600e.py 8
# Cost: not measured.
# Known deviations: bf16 instead of fp16 with loss scaling; targets always in fp32.
_base_ = [
    "../_base_/models/localmim_vitb.py",
    "../_base_/recipes/pretrain_features.py",
]

model = dict(backbone=dict(arch="deit-small"))

train_dataloader = dict(batch_size=256)
optim_wrapper = dict(optimizer=dict(lr=2e-4 * 2048 / 256))
param_scheduler = [
    _base_.param_scheduler[0],
    {**_base_.param_scheduler[1], "eta_min": 1e-6},
]
train_cfg = dict(max_epochs=1600)
auto_scale_lr = dict(base_batch_size=2048)
