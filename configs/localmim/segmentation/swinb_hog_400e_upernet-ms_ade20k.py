# The test of swinb_hog_400e_upernet_ade20k.py at six scales (0.5 to 1.75), each flipped
# and not: ours, the official test has one scale. It trains nothing.
# Paper: LocalMIM, https://arxiv.org/abs/2303.05251.
# Global batch size: 16 (of the training; the test takes one image per GPU).
# Command: tools/dist_test.sh \
#   configs/localmim/segmentation/swinb_hog_400e_upernet-ms_ade20k.py FINETUNED.pth 8
_base_ = [
    "../../_base_/models/upernet_swinb.py",
    "../../_base_/datasets/ade20k_512.py",
    "../../_base_/recipes/segmentation_160k.py",
]

pretrained = "work_dirs/localmim/swinb_hog_400e/epoch_400.pth"

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
optim_wrapper = _base_.swin_optim_wrapper
