# Fine-tuning of a DeepMIM or MAE pixel model, ViT-B/16, 100 epochs on ImageNet-1K.
# Papers: DeepMIM, https://arxiv.org/abs/2303.08817 (84.2 top-1 after 1600 epochs of
# pre-training, 83.4 after 300, the paper's); its recipe for the pixel model is not
# published, so this is MAE's (https://arxiv.org/abs/2111.06377, appendix A.1, table 9).
# Not reproduced here.
# Global batch size: 1024 (8 GPUs x 128); the lr scales to the real one.
# Command: tools/dist_train.sh \
#   configs/deepmim/benchmarks/mae_vitb_finetune-100e_in1k.py 8 \
#   --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
_base_ = [
    "../../_base_/datasets/imagenet_finetune.py",
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
        drop_path_rate=0.1,
        # Mean of the patch tokens of the last block, un-normed, then its own norm.
        out_type="avg_featmap",
        final_norm=False,
        init_cfg=dict(type="Pretrained", checkpoint=pretrained, prefix="backbone."),
    ),
    head=dict(
        type="LinearClsHead",
        num_classes=1000,
        in_channels=768,
        loss=dict(type="LabelSmoothLoss", label_smooth_val=0.1, mode="original"),
        init_cfg=dict(type="TruncNormal", layer="Linear", std=2e-5),
    ),
    train_cfg=dict(
        augments=[dict(type="Mixup", alpha=0.8), dict(type="CutMix", alpha=1.0)]
    ),
)

optim_wrapper = dict(
    type="OptimWrapper",
    constructor="LayerDecayOptimWrapperConstructor",
    optimizer=dict(
        type="AdamW", lr=5e-4 * 1024 / 256, betas=(0.9, 0.999), weight_decay=0.05
    ),
    paramwise_cfg=dict(
        layer_decay_rate=0.65,
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
        end=100,
        T_max=95,
        # 1e-6 of a peak of 2e-3, before the layer decay, as in the official code.
        eta_min_ratio=1e-6 / (5e-4 * 1024 / 256),
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=100, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=1024)
# Mixup, CutMix and drop path draw differently in every process; the order of the images
# and their crops depend on the sampler's seed alone.
randomness = dict(seed=0, diff_rank_seed=True)
train_dataloader = dict(sampler=dict(seed=0))
default_hooks = dict(checkpoint=dict(interval=1, max_keep_ckpts=3, save_best="auto"))
