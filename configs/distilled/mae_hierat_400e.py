# MAE on Hiera-Tiny (width 46, 6.7M parameters), 400 epochs on ImageNet-1K, no teacher.
# Paper: An Experimental Study on Exploring Strong Lightweight Vision Transformers via
# Masked Image Modeling Pre-Training, https://arxiv.org/abs/2404.12210; results table of
# the official repository.
# Expected: 78.5 top-1 after 300 epochs of fine-tuning (the official repository's). Not
# reproduced here.
# Global batch size: 4096 (8 GPUs x 512); kept on fewer GPUs by accumulation.
# Command: tools/dist_train.sh configs/distilled/mae_hierat_400e.py 8
# Known deviations: bf16 instead of fp16 with loss scaling.
_base_ = [
    "../_base_/models/mae_hierat.py",
    "../_base_/recipes/pretrain_lightweight.py",
]
