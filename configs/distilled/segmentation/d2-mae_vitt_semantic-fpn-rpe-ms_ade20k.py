# The test of d2-mae_vitt_semantic-fpn-rpe_ade20k.py at six scales (0.5 to 1.75), each
# flipped and not: ours, since the paper's 42.8 mIoU is that of one scale. It trains
# nothing.
# Paper: https://arxiv.org/abs/2404.12210.
# Global batch size: 16 (of the training; the test takes one image per GPU).
# Command: tools/dist_test.sh \
#   configs/distilled/segmentation/d2-mae_vitt_semantic-fpn-rpe-ms_ade20k.py \
#   FINETUNED.pth 8
_base_ = [
    "../../_base_/models/semantic-fpn_vitt.py",
    "../../_base_/datasets/ade20k_512.py",
    "../../_base_/recipes/segmentation_160k.py",
]

pretrained = (
    "work_dirs/distilled/benchmarks/d2-mae_vitt_finetune-rpe-1000e_in1k/"
    "best_accuracy_top1_epoch_1000.pth"
)

model = dict(
    _delete_=True,
    **_base_.tta_model,
    module=dict(
        _base_.model,
        backbone=dict(
            _base_.model.backbone,
            init_cfg=dict(_base_.model.backbone.init_cfg, checkpoint=pretrained),
        ),
    ),
)
test_dataloader = dict(dataset=dict(pipeline=_base_.tta_pipeline))
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.8))
param_scheduler = [
    _base_.param_scheduler[0],
    # Behind the warm-up, and not from the start.
    {**_base_.param_scheduler[1], "begin": _base_.param_scheduler[0].end},
]
