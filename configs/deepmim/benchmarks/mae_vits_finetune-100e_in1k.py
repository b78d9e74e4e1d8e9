# Fine-tuning of a DeepMIM pixel model, ViT-S/16, 100 epochs on ImageNet-1K.
# Paper: DeepMIM, https://arxiv.org/abs/2303.08817, which has no ViT-S. The recipe is
# ours, that of mae_vitb_finetune-100e_in1k.py. Expected result: unknown, not reproduced
# here.
# Global batch size: 1024 (8 GPUs x 128); the lr scales to the real one.
# Command: tools/dist_train.sh \
#   configs/deepmim/benchmarks/mae_vits_finetune-100e_in1k.py 8 \
#   --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
_base_ = [
    "../../_base_/models/classifier_vitb.py",
    "../../_base_/recipes/finetune.py",
]

# The checkpoint of the pre-training, ours as it is.
pretrained = "work_dirs/deepmim/mae_vits_1600e/epoch_1600.pth"

model = dict(
    backbone=dict(arch="deit-small", init_cfg=dict(checkpoint=pretrained)),
    head=dict(in_channels=384),
)
