# Semantic FPN on ADE20K from MAE's ViT-Tiny/16 (12 heads), 160k iterations at 512.
# Paper: https://arxiv.org/abs/2404.12210, whose recipe for D2-MAE this is; its result
# from MAE's pre-trained weights is not known to us. Not reproduced here.
# Global batch size: 16 (8 GPUs x 2); the lr scales to the real one.
# Command: tools/dist_train.sh \
#   configs/distilled/segmentation/mae_vitt_semantic-fpn_ade20k.py 8 \
#   --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
_base_ = [
    "../../_base_/models/semantic-fpn_vitt.py",
    "../../_base_/datasets/ade20k_512.py",
    "../../_base_/recipes/segmentation_160k.py",
]

pretrained = "work_dirs/distilled/mae_vitt_400e/epoch_400.pth"

model = dict(backbone=dict(init_cfg=dict(checkpoint=pretrained)))
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.8))
param_scheduler = [
    _base_.param_scheduler[0],
    # Behind the warm-up, and not from the start.
    {**_base_.param_scheduler[1], "begin": _base_.param_scheduler[0].end},
]
