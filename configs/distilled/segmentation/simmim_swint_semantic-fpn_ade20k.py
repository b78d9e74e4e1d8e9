# Semantic FPN on ADE20K from SimMIM's Swin-Tiny of width 48, 160k iterations at 512.
# Paper: https://arxiv.org/abs/2404.12210, which has no segmentation with Swin. The
# recipe is ours: that of Hiera-Tiny (mae-lite_hierat_semantic-fpn_ade20k.py), tables of
# relative positions not decayed. Not reproduced here.
# Global batch size: 16 (8 GPUs x 2); the lr scales to the real one.
# Command: tools/dist_train.sh \
#   configs/distilled/segmentation/simmim_swint_semantic-fpn_ade20k.py 8 \
#   --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
_base_ = [
    "../../_base_/models/semantic-fpn_swint.py",
    "../../_base_/datasets/ade20k_512.py",
    "../../_base_/recipes/segmentation_160k.py",
]

pretrained = "work_dirs/distilled/simmim_swint_400e/epoch_400.pth"

model = dict(backbone=dict(init_cfg=dict(checkpoint=pretrained)))
optim_wrapper = dict(
    paramwise_cfg=dict(
        layer_decay_rate=0.8,
        custom_keys={"relative_position_bias_table": dict(decay_mult=0.0)},
    )
)
param_scheduler = [
    _base_.param_scheduler[0],
    # Behind the warm-up, and not from the start.
    {**_base_.param_scheduler[1], "begin": _base_.param_scheduler[0].end},
]
