# Fine-tuning of MAE, ViT-L/16, 50 epochs on ImageNet-1K.
# Paper: MAE, https://arxiv.org/abs/2111.06377, appendix A.1; learning rate, layer decay
# and drop path are those of the fine-tuning page of its released code.
# Expected: 85.9 top-1 (the paper's). Not reproduced here.
# Global batch size: 1024 (8 GPUs x 128); the lr scales to the real one.
# Command: tools/dist_train.sh \
#   configs/mae/benchmarks/vitl_finetune-50e_in1k.py 8 \
#   --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
# Known deviations: bf16 instead of fp16 with loss scaling.
_base_ = [
    "../../_base_/models/classifier_vitl.py",
    "../../_base_/recipes/finetune_vitl.py",
]

# The checkpoint of the pre-training, ours as it is, or the official one.
pretrained = "work_dirs/mae/vitl_1600e/epoch_1600.pth"

model = dict(backbone=dict(init_cfg=dict(checkpoint=pretrained)))
