# D2-MAE on ViT-Small/16 with 12 heads, distilled from MAE ViT-B/16, 400 epochs on
# ImageNet-1K.
# Paper: https://arxiv.org/abs/2404.12210; the official repository has no result of
# D2-MAE on ViT-Small. Expected: unknown, not reproduced here.
# Global batch size: 4096 (8 GPUs x 512); kept on fewer GPUs by accumulation.
# Command: tools/dist_train.sh configs/distilled/d2-mae_vits_400e.py 8 \
#   --cfg-options model.teacher_checkpoint=MAE_VITB.pth
# Known deviations: bf16 instead of fp16 with loss scaling.
_base_ = [
    "../_base_/models/d2-mae_vitt.py",
    "../_base_/recipes/pretrain_lightweight.py",
]

model = dict(
    backbone=dict(arch=dict(embed_dims=384, feedforward_channels=1536)),
    neck=dict(embed_dims=192, num_heads=6),
)
