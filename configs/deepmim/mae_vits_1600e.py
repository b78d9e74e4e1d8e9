# DeepMIM on pixels, ViT-S/16, 1600 epochs on ImageNet-1K.
# Paper: DeepMIM, https://arxiv.org/abs/2303.08817; it has no ViT-S model, so
# the arch and its levels are ours. Expected result: unknown, not reproduced here.
# Global batch size: 4096; kept on fewer GPUs by accumulation.
# Command: tools/dist_train.sh configs/deepmim/mae_vits_1600e.py 8
_base_ = [
    "../_base_/models/deepmim_vitb.py",
    "../_base_/recipes/pretrain_pixels.py",
]

model = dict(backbone=dict(arch="deit-small"))
train_cfg = dict(max_epochs=1600)
