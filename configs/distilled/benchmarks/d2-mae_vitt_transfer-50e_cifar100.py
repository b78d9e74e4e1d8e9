# Transfer of D2-MAE-Tiny (ViT-Tiny/16, 12 heads) to CIFAR-100 at 224 pixels, 50 epochs:
# little data, where the higher layers count.
# Papers: https://arxiv.org/abs/2205.14443 and its extension,
# https://arxiv.org/abs/2404.12210.
# Expected: unknown (in tables of the papers that were not at hand), not reproduced
# here.
# Global batch size: 512 (8 GPUs x 64); kept on fewer GPUs by accumulation.
# Command: tools/dist_train.sh \
#   configs/distilled/benchmarks/d2-mae_vitt_transfer-50e_cifar100.py 8 \
#   --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
# Unverified: lr and epochs; here they are those of the official code's documented
# command for this set, which is not for D2-MAE.
_base_ = [
    "../../_base_/recipes/transfer_vitt.py",
    "../../_base_/datasets/cifar100.py",
]

pretrained = "work_dirs/distilled/d2-mae_vitt_400e/epoch_400.pth"

model = dict(
    # CIFAR's images are RGB already.
    data_preprocessor=dict(num_classes=100, to_rgb=False),
    backbone=dict(init_cfg=dict(checkpoint=pretrained)),
    head=dict(num_classes=100),
)
train_dataloader = dict(sampler=dict(seed=0))
