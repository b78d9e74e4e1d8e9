# Transfer of D2-MAE-Tiny (ViT-Tiny/16, 12 heads) to Oxford-IIIT Pets at 224 pixels,
# 50 epochs.
# Papers: https://arxiv.org/abs/2205.14443 and its extension,
# https://arxiv.org/abs/2404.12210.
# Expected: unknown, not reproduced here.
# Global batch size: 512 (8 GPUs x 64); kept on fewer GPUs by accumulation.
# Command: tools/dist_train.sh \
#   configs/distilled/benchmarks/d2-mae_vitt_transfer-50e_pets.py 8 \
#   --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
# Unverified: lr and epochs, which the official code takes as arguments; here they are
# those of its one documented command, for CIFAR-100, which is not for D2-MAE.
_base_ = [
    "../../_base_/recipes/transfer_vitt.py",
    "../../_base_/datasets/flowers102.py",
]

pretrained = "work_dirs/distilled/d2-mae_vitt_400e/epoch_400.pth"

model = dict(
    data_preprocessor=dict(num_classes=37),
    backbone=dict(init_cfg=dict(checkpoint=pretrained)),
    head=dict(num_classes=37),
)

data_root = "data/Oxford-IIIT_Pets"
train_dataloader = dict(
    sampler=dict(seed=0),
    dataset=dict(dataset=dict(type="OxfordIIITPet", data_root=data_root)),
)
val_dataloader = dict(dataset=dict(type="OxfordIIITPet", data_root=data_root))
test_dataloader = val_dataloader
