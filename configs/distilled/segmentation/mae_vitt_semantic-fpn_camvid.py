# Semantic FPN on CamVid (367 street images, 11 classes) from a MAE ViT-Tiny/16, sized
# for one CPU core: crops of 128 pixels, 700 iterations of 8 images. Ours, no paper's
# experiment; the model is that of https://arxiv.org/abs/2404.12210.
# Global batch size: 8; the lr scales to the real one.
# Command: python tools/train.py \
#   configs/distilled/segmentation/mae_vitt_semantic-fpn_camvid.py \
#   --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth data_root=CAMVID/
# From random weights: --cfg-options model.backbone.init_cfg=None
_base_ = [
    "../../_base_/models/semantic-fpn_vitt.py",
    "../../_base_/datasets/camvid_128.py",
    "../../_base_/recipes/segmentation_160k.py",
]

pretrained = "work_dirs/distilled/mae_vitt_400e/epoch_400.pth"

model = dict(
    data_preprocessor=dict(size=(128, 128), test_cfg=dict(size=(128, 128))),
    backbone=dict(img_size=128, init_cfg=dict(checkpoint=pretrained)),
    # One process: plain batch norm is the same.
    neck=dict(norm_cfg=dict(type="BN")),
    decode_head=dict(num_classes=11, norm_cfg=dict(type="BN")),
    test_cfg=dict(crop_size=(128, 128), stride=(64, 64)),
)
# No layer decay, so that random weights learn at the same rates as pre-trained ones.
optim_wrapper = dict(optimizer=dict(lr=5e-4), paramwise_cfg=dict(layer_decay_rate=1.0))
warmup_iters = 70
param_scheduler = [
    {**_base_.param_scheduler[0], "end": warmup_iters},
    {**_base_.param_scheduler[1], "begin": warmup_iters},
]
train_cfg = dict(max_iters=700, val_interval=350)
default_hooks = dict(checkpoint=dict(interval=350))
auto_scale_lr = dict(base_batch_size=8)
