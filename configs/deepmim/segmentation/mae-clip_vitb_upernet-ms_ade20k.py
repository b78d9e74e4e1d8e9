# The test of mae-clip_vitb_upernet_ade20k.py at six scales (0.5 to 1.75), each flipped
# and not: ours, since the paper's 53.1 mIoU is that of one scale. It trains nothing.
# Paper: DeepMIM, https://arxiv.org/abs/2303.08817.
# Global batch size: 16 (of the training; the test takes one image per GPU).
# Command: tools/dist_test.sh \
#   configs/deepmim/segmentation/mae-clip_vitb_upernet-ms_ade20k.py FINETUNED.pth 8
_base_ = [
    "../../_base_/models/upernet_vitb.py",
    "../../_base_/datasets/ade20k_512.py",
    "../../_base_/recipes/segmentation_160k.py",
]

pretrained = "work_dirs/deepmim/mae-clip_vitb_1600e/epoch_1600.pth"

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
optim_wrapper = dict(optimizer=dict(lr=5e-5))
