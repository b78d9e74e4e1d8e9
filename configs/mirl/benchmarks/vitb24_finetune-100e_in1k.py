# Fine-tuning of MIRL's ViT-B-24/16, 100 epochs on ImageNet-1K.
# Paper: MIRL, https://arxiv.org/abs/2309.14136; its official README gives 84.7 top-1
# after 300 epochs of pre-training. Not reproduced here.
# Unverified: the whole recipe, which is not published for this model; it is that of
# ViT-S-54 (100 epochs, drop path 0.1).
# Global batch size: 2048; kept on fewer GPUs by accumulation.
# Command: tools/dist_train.sh \
#   configs/mirl/benchmarks/vitb24_finetune-100e_in1k.py 8 \
#   --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
# Known deviations: those of vits54_finetune-100e_in1k.py.
_base_ = [
    "../../_base_/models/classifier_deep-vit.py",
    "../../_base_/recipes/finetune_ema.py",
]

pretrained = "work_dirs/mirl/vitb24_300e/epoch_300.pth"

model = dict(
    backbone=dict(
        arch=dict(
            embed_dims=768, num_layers=24, num_heads=12, feedforward_channels=3072
        ),
        init_cfg=dict(checkpoint=pretrained),
    ),
    head=dict(in_channels=768),
)
