# Linear probe of MAE-Tiny (ViT-Tiny/16, 12 heads), 90 epochs on ImageNet-1K.
# Ours: the lightweight studies' code has no linear probe; this is MAE's recipe
# (https://arxiv.org/abs/2111.06377, appendix A.1, table 10).
# Expected: unknown, not reproduced here.
# Global batch size: 16384 (8 GPUs x 2048); the lr scales to the real one.
# Command: tools/dist_train.sh \
#   configs/distilled/benchmarks/mae_vitt_linear-90e_in1k.py 8 \
#   --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
_base_ = [
    "../../_base_/models/linear_vitb.py",
    "../../_base_/recipes/linear.py",
]

pretrained = "work_dirs/distilled/mae_vitt_400e/epoch_400.pth"

model = dict(
    backbone=dict(
        arch=dict(
            _delete_=True,
            embed_dims=192,
            num_layers=12,
            num_heads=12,
            feedforward_channels=768,
        ),
        init_cfg=dict(checkpoint=pretrained),
    ),
    neck=dict(input_features=192),
    head=dict(in_channels=192),
)
