# Linear probe of a DeepMIM or MAE pixel model, ViT-B/16, 90 epochs on ImageNet-1K.
# Papers: DeepMIM publishes no linear-probe recipe; this is MAE's
# (https://arxiv.org/abs/2111.06377, appendix A.1, table 10: 68.0 top-1 for MAE ViT-B at
# 1600 epochs, the paper's). Not reproduced here.
# Global batch size: 16384 (8 GPUs x 2048); the lr scales to the real one.
# Command: tools/dist_train.sh \
#   configs/deepmim/benchmarks/mae_vitb_linear-90e_in1k.py 8 \
#   --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
_base_ = [
    "../../_base_/datasets/imagenet_linear.py",
    "../../_base_/default_runtime.py",
]

# The checkpoint of the pre-training, ours as it is.
pretrained = "work_dirs/mae_vitb_1600e/epoch_1600.pth"

model = dict(
    type="ImageClassifier",
    data_preprocessor=dict(
        num_classes=1000,
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=True,
    ),
    backbone=dict(
        type="VisionTransformer",
        arch="base",
        img_size=224,
        patch_size=16,
        frozen_stages=12,
        out_type="cls_token",
        final_norm=True,
        init_cfg=dict(type="Pretrained", checkpoint=pretrained, prefix="backbone."),
    ),
    # A batch norm without affine parameters in front of the linear layer.
    neck=dict(type="ClsBatchNormNeck", input_features=768),
    head=dict(
        type="VisionTransformerClsHead",
        num_classes=1000,
        in_channels=768,
        loss=dict(type="CrossEntropyLoss"),
        init_cfg=dict(type="TruncNormal", layer="Linear", std=0.01),
    ),
)

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="LARS", lr=0.1 * 16384 / 256, momentum=0.9, weight_decay=0.0),
    # As MAE's LARS, without a trust ratio for one-dimensional parameters.
    paramwise_cfg=dict(custom_keys={".bias": dict(lars_exclude=True)}),
)
param_scheduler = [
    dict(
        type="LinearLR",
        start_factor=1e-9,
        begin=0,
        end=10,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
    dict(
        type="CosineAnnealingLR",
        begin=10,
        end=90,
        T_max=80,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=90, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=16384)
default_hooks = dict(checkpoint=dict(interval=1, max_keep_ckpts=3, save_best="auto"))
