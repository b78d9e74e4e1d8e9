# Semantic FPN on ADE20K from D2-MAE's ViT-Tiny/16 (12 heads), pre-trained and then
# fine-tuned on ImageNet-1K with relative positions, 160k iterations at 512.
# Paper: An Experimental Study on Exploring Strong Lightweight Vision Transformers via
# Masked Image Modeling Pre-Training, https://arxiv.org/abs/2404.12210; recipe and
# results of the official repository.
# Expected: 42.8 mIoU (the paper's), its best ViT-Tiny. Not reproduced here.
# Global batch size: 16 (8 GPUs x 2); the lr scales to the real one.
# Command: tools/dist_train.sh \
#   configs/distilled/segmentation/d2-mae_vitt_semantic-fpn-rpe_ade20k.py 8 \
#   --cfg-options model.backbone.init_cfg.checkpoint=FINETUNED.pth
# Known deviations: those of d2-mae_vitt_semantic-fpn_ade20k.py.
_base_ = [
    "../../_base_/models/semantic-fpn_vitt.py",
    "../../_base_/datasets/ade20k_512.py",
    "../../_base_/recipes/segmentation_160k.py",
]

pretrained = (
    "work_dirs/distilled/benchmarks/d2-mae_vitt_finetune-rpe-1000e_in1k/"
    "best_accuracy_top1_epoch_1000.pth"
)

model = dict(backbone=dict(init_cfg=dict(checkpoint=pretrained)))
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.8))
param_scheduler = [
    _base_.param_scheduler[0],
    # Behind the warm-up, and not from the start.
    {**_base_.param_scheduler[1], "begin": _base_.param_scheduler[0].end},
]
