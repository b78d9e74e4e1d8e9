# The test of vitb48_800e_upernet_ade20k.py at six scales (0.5 to 1.75), each flipped
# and not: ours, as all of it. It trains nothing.
# Paper: MIRL, https://arxiv.org/abs/2309.14136.
# Global batch size: 16 (of the training; the test takes one image per GPU).
# Command: tools/dist_test.sh \
#   configs/mirl/segmentation/vitb48_800e_upernet-ms_ade20k.py FINETUNED.pth 8
_base_ = [
    "../../_base_/models/upernet_vitb48.py",
    "../../_base_/datasets/ade20k_512.py",
    "../../_base_/recipes/segmentation_160k.py",
]

pretrained = "work_dirs/mirl/vitb48_800e/epoch_800.pth"

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
optim_wrapper = dict(
    optimizer=dict(lr=5e-5), paramwise_cfg=dict(layer_decay_rate=0.9 ** (13 / 49))
)
