# Fine-tuning of a DeepMIM pixel model, ViT-L/16, 50 epochs on ImageNet-1K.
# Paper: DeepMIM, https://arxiv.org/abs/2303.08817, which has no ViT-L. The recipe is
# ours: that of the fine-tuning page of MAE's released code for ViT-L
# (https://arxiv.org/abs/2111.06377): 1e-3 per 256 images, layer decay 0.75, drop path
# 0.2. Expected result: unknown, not reproduced here.
# Global batch size: 1024 (8 GPUs x 128); the lr scales to the real one.
# Command: tools/dist_train.sh \
#   configs/deepmim/benchmarks/mae_vitl_finetune-50e_in1k.py 8 \
#   --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
_base_ = [
    "../../_base_/models/classifier_vitl.py",
    "../../_base_/recipes/finetune_vitl.py",
]

# The checkpoint of the pre-training, ours as it is.
pretrained = "work_dirs/deepmim/mae_vitl_1600e/epoch_1600.pth"

model = dict(backbone=dict(init_cfg=dict(checkpoint=pretrained)))
