# MAE-Tiny: MAE on ViT-Tiny/16 with 12 heads, 400 epochs on ImageNet-1K, no teacher.
# Papers: A Closer Look at Self-Supervised Lightweight Vision Transformers,
# https://arxiv.org/abs/2205.14443, and its extension,
# https://arxiv.org/abs/2404.12210; results table of the official repository.
# Expected: 78.0 top-1 after 300 epochs of fine-tuning, 79.0 after 1000 with relative
# positions (the official checkpoints'). Not reproduced here.
# Global batch size: 4096 (8 GPUs x 512); kept on fewer GPUs by accumulation.
# Command: tools/dist_train.sh configs/distilled/mae_vitt_400e.py 8
# Known deviations: bf16 instead of fp16 with loss scaling.
_base_ = [
    "../_base_/models/mim_vitt.py",
    "../_base_/recipes/pretrain_lightweight.py",
]
