# The test of d2-mae_vitt_semantic-fpn-rpe_ade20k.py at six scales (0.5 to 1.75), each
# flipped and not: ours, since the paper's 42.8 mIoU is that of one scale. It trains
# nothing.
# Paper: https://arxiv.org/abs/2404.12210.
# Global batch size: 16 (of the training; the test takes one image per GPU).
# Command: tools/dist_test.sh \
#   configs/distilled/segmentation/d2-mae_vitt_semantic-fpn-rpe-ms_ade20k.py \
#   FINETUNED.pth 8
_base_ = "./d2-mae_vitt_semantic-fpn-rpe_ade20k.py"

model = dict(_delete_=True, **_base_.tta_model, module=_base_.model)
test_dataloader = dict(dataset=dict(pipeline=_base_.tta_pipeline))
