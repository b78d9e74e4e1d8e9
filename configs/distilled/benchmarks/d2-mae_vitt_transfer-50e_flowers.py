# Transfer of D2-MAE-Tiny (ViT-Tiny/16, 12 heads) to Flowers-102 at 224 pixels,
# 50 epochs.
# Papers: https://arxiv.org/abs/2205.14443 and its extension,
# https://arxiv.org/abs/2404.12210.
# Expected: unknown, not reproduced here.
# Global batch size: 512 (8 GPUs x 64); the lr scales to the real one.
# Command: tools/dist_train.sh \
#   configs/distilled/benchmarks/d2-mae_vitt_transfer-50e_flowers.py 8 \
#   --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
# Needs: pip install mat4py, to read the labels.
# Unverified: lr and epochs, here CIFAR-100's, which alone are documented.
_base_ = "./d2-mae_vitt_transfer-50e_cifar100.py"

model = dict(
    data_preprocessor=dict(num_classes=102, to_rgb=True), head=dict(num_classes=102)
)

train_pipeline = [
    dict(type="LoadImageFromFile", color_type="color_ignore_orientation"),
    dict(type="TensorRandomResizedCrop", scale=224),
    dict(type="RandomFlip", prob=0.5, direction="horizontal"),
    dict(type="PackInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile", color_type="color_ignore_orientation"),
    dict(
        type="ResizeEdge",
        scale=256,
        edge="short",
        backend="pillow",
        interpolation="bicubic",
    ),
    dict(type="CenterCrop", crop_size=224),
    dict(type="PackInputs"),
]
image_set = dict(type="Flowers102", data_root="data/Flowers102")
train_dataloader = dict(
    dataset=dict(dataset=dict(**image_set, split="trainval", pipeline=train_pipeline))
)
val_dataloader = dict(dataset=dict(**image_set, split="test", pipeline=test_pipeline))
test_dataloader = val_dataloader
