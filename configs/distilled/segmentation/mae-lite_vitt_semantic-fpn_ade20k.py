# Semantic FPN on ADE20K from MAE-Lite's ViT-Tiny/16 (12 heads), 160k iterations at 512.
# Papers: https://arxiv.org/abs/2205.14443 and its extension,
# https://arxiv.org/abs/2404.12210. The recipe on these weights is ours: the latter's
# for D2-MAE; no result from MAE-Lite's is published. Not reproduced here.
# Global batch size: 16 (8 GPUs x 2); the lr scales to the real one.
# Command: tools/dist_train.sh \
#   configs/distilled/segmentation/mae-lite_vitt_semantic-fpn_ade20k.py 8 \
#   --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
# Known deviations: those of d2-mae_vitt_semantic-fpn_ade20k.py.
_base_ = [
    "../../_base_/models/semantic-fpn_vitt.py",
    "../../_base_/datasets/ade20k_512.py",
    "../../_base_/recipes/segmentation_160k.py",
]

pretrained = "work_dirs/distilled/mae-lite_vitt_400e/epoch_400.pth"

model = dict(backbone=dict(init_cfg=dict(checkpoint=pretrained)))
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.8))
param_scheduler = [
    _base_.param_scheduler[0],
    # Behind the warm-up, and not from the start.
    {**_base_.param_scheduler[1], "begin": _base_.param_scheduler[0].end},
]
