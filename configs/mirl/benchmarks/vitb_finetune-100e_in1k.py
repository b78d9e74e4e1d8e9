# Fine-tuning of MIRL's ViT-B/16 (12 blocks), 100 epochs on ImageNet-1K.
# Paper: MIRL, https://arxiv.org/abs/2309.14136; its official README gives 83.5 top-1
# after 300 epochs of pre-training, 84.1 after 800. Not reproduced here.
# Unverified: the whole recipe, which is not published for this model; it is that of a
# script for 12 blocks that the official repository deleted. Its layer decay is 0.6:
# the 0.88 of the deep models leaves the first of 12 blocks more than 100 times the lr
# that it leaves the first of 54.
# Global batch size: 2048; kept on fewer GPUs by accumulation.
# Command: tools/dist_train.sh \
#   configs/mirl/benchmarks/vitb_finetune-100e_in1k.py 8 \
#   --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
# Known deviations: those of vits54_finetune-100e_in1k.py.
_base_ = [
    "../../_base_/models/classifier_deep-vit.py",
    "../../_base_/recipes/finetune_ema.py",
]

pretrained = "work_dirs/mirl/vitb_800e/epoch_800.pth"

model = dict(
    backbone=dict(
        arch=dict(
            embed_dims=768, num_layers=12, num_heads=12, feedforward_channels=3072
        ),
        init_cfg=dict(checkpoint=pretrained),
    ),
    head=dict(in_channels=768),
)
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.6))
