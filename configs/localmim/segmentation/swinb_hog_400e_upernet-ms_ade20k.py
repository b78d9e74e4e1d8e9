# The test of swinb_hog_400e_upernet_ade20k.py at six scales (0.5 to 1.75), each flipped
# and not: ours, the official test has one scale. It trains nothing.
# Paper: LocalMIM, https://arxiv.org/abs/2303.05251.
# Global batch size: 16 (of the training; the test takes one image per GPU).
# Command: tools/dist_test.sh \
#   configs/localmim/segmentation/swinb_hog_400e_upernet-ms_ade20k.py FINETUNED.pth 8
_base_ = "./swinb_hog_400e_upernet_ade20k.py"

model = dict(_delete_=True, **_base_.tta_model, module=_base_.model)
test_dataloader = dict(dataset=dict(pipeline=_base_.tta_pipeline))
