# Supervised training of ViT-Tiny/16 (12 heads) from scratch, 300 epochs on
# ImageNet-1K: what the lightweight studies call DeiT-Tiny.
# Papers: https://arxiv.org/abs/2205.14443 and its extension,
# https://arxiv.org/abs/2404.12210; results table of the official repository.
# Expected: 75.8 top-1 (the official repository's). Not reproduced here.
# Global batch size: 1024 (8 GPUs x 128); the lr scales to the real one.
# Command: tools/dist_train.sh \
#   configs/distilled/benchmarks/vitt_scratch-300e_in1k.py 8
# Unverified: that no layer decay is used; layers that start from nothing learn at one
# rate here, else it is the improved recipe of fine-tuning.
_base_ = [
    "../../_base_/models/classifier_vitt.py",
    "../../_base_/recipes/finetune_lightweight.py",
]

model = dict(
    backbone=dict(
        init_cfg=[
            dict(type="TruncNormal", layer="Linear", std=0.02, bias=0.0),
            dict(type="Constant", layer="LayerNorm", val=1.0, bias=0.0),
        ],
    )
)
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=1.0))
