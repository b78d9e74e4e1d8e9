# Fine-tuning of MAE-Tiny (ViT-Tiny/16, 12 heads), 300 epochs on ImageNet-1K: the
# improved recipe of the lightweight studies, the same for all their encoders.
# Papers: https://arxiv.org/abs/2205.14443 and its extension,
# https://arxiv.org/abs/2404.12210; results table of the official repository.
# Expected: 78.0 top-1 (the official checkpoint: 77.978). Not reproduced here.
# Global batch size: 1024 (8 GPUs x 128); the lr scales to the real one.
# Command: tools/dist_train.sh \
#   configs/distilled/benchmarks/mae_vitt_finetune-300e_in1k.py 8 \
#   --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
# Known deviations: bf16 in place of fp16 with loss scaling; that the head starts with
# std 0.02 is timm's default, which the official code does not change.
_base_ = [
    "../../_base_/datasets/imagenet_finetune.py",
    "../../_base_/default_runtime.py",
]

# The checkpoint of the pre-training, ours as it is.
pretrained = "work_dirs/mae_vitt_400e/epoch_400.pth"

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
        # mmpretrain's "deit-tiny" has the same tensors and 3 heads: weights would load
        # into it and give garbage.
        arch=dict(
            embed_dims=192, num_layers=12, num_heads=12, feedforward_channels=768
        ),
        img_size=224,
        patch_size=16,
        # Mean of the patch tokens of the last block, un-normed, then its own norm.
        out_type="avg_featmap",
        final_norm=False,
        init_cfg=dict(type="Pretrained", checkpoint=pretrained, prefix="backbone."),
    ),
    head=dict(
        type="LinearClsHead",
        num_classes=1000,
        in_channels=192,
        loss=dict(type="CrossEntropyLoss", use_soft=True),
        init_cfg=dict(type="TruncNormal", layer="Linear", std=0.02),
    ),
    train_cfg=dict(augments=[dict(type="Mixup", alpha=0.2)]),
)

# timm's rand-m10-mstd0.5-inc1, without random erasing. Images are BGR here.
train_pipeline = [
    dict(type="LoadImageFromFile", color_type="color_ignore_orientation"),
    dict(type="TensorRandomResizedCrop", scale=224),
    dict(type="RandomFlip", prob=0.5, direction="horizontal"),
    dict(
        type="RandAugment",
        policies="timm_increasing",
        num_policies=2,
        total_level=10,
        magnitude_level=10,
        magnitude_std=0.5,
        hparams=dict(pad_val=[104, 116, 124], interpolation="bicubic"),
    ),
    dict(type="PackInputs"),
]

optim_wrapper = dict(
    type="OptimWrapper",
    constructor="LayerDecayOptimWrapperConstructor",
    optimizer=dict(
        type="AdamW", lr=1e-3 * 1024 / 256, betas=(0.9, 0.999), weight_decay=0.05
    ),
    paramwise_cfg=dict(
        layer_decay_rate=0.85,
        flat_decay_mult=0.0,
        bias_decay_mult=0.0,
        custom_keys={
            "backbone.cls_token": dict(decay_mult=0.0),
            "backbone.pos_embed": dict(decay_mult=0.0),
        },
    ),
)
param_scheduler = [
    dict(
        type="LinearLR",
        start_factor=1e-9,
        begin=0,
        end=5,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
    dict(
        type="CosineAnnealingLR",
        begin=5,
        end=300,
        T_max=295,
        # 1e-6 of a peak of 4e-3, before the layer decay, as in the official code.
        eta_min_ratio=1e-6 / (1e-3 * 1024 / 256),
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=300, val_interval=10)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=1024)
# Mixup draws differently in every process; the order of the images and their crops
# depend on the sampler's seed alone.
randomness = dict(seed=0, diff_rank_seed=True)
train_dataloader = dict(
    sampler=dict(seed=0), dataset=dict(dataset=dict(pipeline=train_pipeline))
)
default_hooks = dict(checkpoint=dict(interval=1, max_keep_ckpts=3, save_best="auto"))
