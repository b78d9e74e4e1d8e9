# The test of vits54_800e_upernet_ade20k.py at six scales (0.5 to 1.75), each flipped
# and not: ours, as all of it. It trains nothing.
# Paper: MIRL, https://arxiv.org/abs/2309.14136.
# Global batch size: 16 (of the training; the test takes one image per GPU).
# Command: tools/dist_test.sh \
#   configs/mirl/segmentation/vits54_800e_upernet-ms_ade20k.py FINETUNED.pth 8
_base_ = "./vits54_800e_upernet_ade20k.py"

model = dict(_delete_=True, **_base_.tta_model, module=_base_.model)
test_dataloader = dict(dataset=dict(pipeline=_base_.tta_pipeline))
