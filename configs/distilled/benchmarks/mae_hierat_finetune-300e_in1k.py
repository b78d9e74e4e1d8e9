# Fine-tuning of Hiera-Tiny (width 46) after MAE, 300 epochs on ImageNet-1K.
# Paper: https://arxiv.org/abs/2404.12210; results table of the official repository.
# Expected: 78.5 top-1 (the official repository's). Not reproduced here.
# Global batch size: 1024 (8 GPUs x 128); the lr scales to the real one.
# Command: tools/dist_train.sh \
#   configs/distilled/benchmarks/mae_hierat_finetune-300e_in1k.py 8 \
#   --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
# Known deviations: bf16 in place of fp16 with loss scaling.
_base_ = "./mae_vitt_finetune-300e_in1k.py"

# The checkpoint of the pre-training, ours as it is.
pretrained = "work_dirs/mae_hierat_400e/epoch_400.pth"

model = dict(
    backbone=dict(
        _delete_=True,
        # One more pooling than in pre-training, of the same weights.
        type="Hiera",
        arch=dict(embed_dims=46, depths=(1, 2, 7, 2), num_heads=1),
        img_size=224,
        init_cfg=dict(type="Pretrained", checkpoint=pretrained, prefix="backbone."),
    ),
    head=dict(
        in_channels=368,
        # A thousandth of what other layers have, bias included.
        init_cfg=dict(type="TruncNormal", layer="Linear", std=2e-5, bias=2e-5),
    ),
)
