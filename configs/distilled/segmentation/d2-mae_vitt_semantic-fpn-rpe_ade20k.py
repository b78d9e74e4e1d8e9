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
_base_ = "./d2-mae_vitt_semantic-fpn_ade20k.py"

# The checkpoint of the fine-tuning: its tables of relative positions are resized from
# 27 to 63 offsets per axis, as in the official run.
pretrained = (
    "work_dirs/d2-mae_vitt_finetune-rpe-1000e_in1k/best_accuracy_top1_epoch_1000.pth"
)

model = dict(backbone=dict(init_cfg=dict(checkpoint=pretrained)))
