# Fine-tuning of D2-MAE-Tiny (ViT-Tiny/16, 12 heads) with relative positions, 1000
# epochs on ImageNet-1K: the best published ViT-Tiny.
# Paper: https://arxiv.org/abs/2404.12210; results table of the official repository.
# Expected: 79.4 top-1 (the official checkpoint: 79.444). Not reproduced here.
# Global batch size: 1024 (8 GPUs x 128); the lr scales to the real one.
# Command: tools/dist_train.sh \
#   configs/distilled/benchmarks/d2-mae_vitt_finetune-rpe-1000e_in1k.py 8 \
#   --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
_base_ = "./mae_vitt_finetune-300e_in1k.py"

model = dict(
    backbone=dict(
        _delete_=True,
        type="RelPosVisionTransformer",
        arch=dict(
            embed_dims=192, num_layers=12, num_heads=12, feedforward_channels=768
        ),
        img_size=224,
        patch_size=16,
        # Queries, keys and values keep their pre-trained biases.
        bias=True,
        init_cfg=dict(
            type="Pretrained",
            checkpoint="work_dirs/d2-mae_vitt_400e/epoch_400.pth",
            prefix="backbone.",
        ),
    ),
    # A thousandth of the usual 0.02.
    head=dict(init_cfg=dict(std=2e-5)),
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
        end=1000,
        T_max=995,
        eta_min_ratio=1e-6 / (1e-3 * 1024 / 256),
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(max_epochs=1000)
