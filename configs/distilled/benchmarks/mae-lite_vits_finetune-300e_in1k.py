# Fine-tuning of D-MAE-Small (ViT-Small/16, 12 heads), 300 epochs on ImageNet-1K.
# Papers: https://arxiv.org/abs/2205.14443 and its extension,
# https://arxiv.org/abs/2404.12210; results table of the official repository.
# Expected: 82.5 top-1 (the official repository's). Not reproduced here.
# Global batch size: 1024 (8 GPUs x 128); kept on fewer GPUs by accumulation.
# Command: tools/dist_train.sh \
#   configs/distilled/benchmarks/mae-lite_vits_finetune-300e_in1k.py 8 \
#   --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
_base_ = [
    "../../_base_/models/classifier_vitt.py",
    "../../_base_/recipes/finetune_lightweight.py",
]

pretrained = "work_dirs/distilled/mae-lite_vits_400e/epoch_400.pth"

model = dict(
    backbone=dict(
        arch=dict(embed_dims=384, feedforward_channels=1536),
        init_cfg=dict(checkpoint=pretrained),
    ),
    head=dict(in_channels=384),
)
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.75))
