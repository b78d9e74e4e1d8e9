# Fine-tuning of MIRL's ViT-S-54/16, 100 epochs on ImageNet-1K.
# Paper: MIRL, https://arxiv.org/abs/2309.14136; recipe and results of its official
# README: 84.4 top-1 after 300 epochs of pre-training, 84.8 after 800. Not reproduced
# here.
# Global batch size: 2048 (the official run: 16 GPUs x 64 x 2 accumulated); kept on
# fewer GPUs by accumulation.
# Command: tools/dist_train.sh \
#   configs/mirl/benchmarks/vits54_finetune-100e_in1k.py 8 \
#   --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
# Known deviations: bf16 instead of fp16 with loss scaling; Mixup and CutMix pair an
# image with a random one of its batch instead of its mirror image in the batch.
_base_ = [
    "../../_base_/models/classifier_deep-vit.py",
    "../../_base_/recipes/finetune_ema.py",
]

pretrained = "work_dirs/mirl/vits54_800e/epoch_800.pth"

model = dict(backbone=dict(init_cfg=dict(checkpoint=pretrained)))
