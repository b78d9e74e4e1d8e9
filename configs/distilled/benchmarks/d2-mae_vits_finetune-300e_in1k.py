# Fine-tuning of D2-MAE on ViT-Small/16 with 12 heads, 300 epochs on ImageNet-1K.
# Paper: https://arxiv.org/abs/2404.12210; the official repository has no such model.
# Expected: unknown, not reproduced here.
# Global batch size: 1024 (8 GPUs x 128); kept on fewer GPUs by accumulation.
# Command: tools/dist_train.sh \
#   configs/distilled/benchmarks/d2-mae_vits_finetune-300e_in1k.py 8 \
#   --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
_base_ = [
    "../../_base_/models/classifier_vitt.py",
    "../../_base_/recipes/finetune_lightweight.py",
]

pretrained = "work_dirs/distilled/d2-mae_vits_400e/epoch_400.pth"

model = dict(
    backbone=dict(
        arch=dict(embed_dims=384, feedforward_channels=1536),
        init_cfg=dict(checkpoint=pretrained),
    ),
    head=dict(in_channels=384),
)
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.75))
