# The test of vitb_hog_1600e_upernet_ade20k.py at six scales (0.5 to 1.75), each flipped
# and not: ours, the official test has one scale. It trains nothing.
# Paper: LocalMIM, https://arxiv.org/abs/2303.05251.
# Global batch size: 16 (of the training; the test takes one image per GPU).
# Command: tools/dist_test.sh \
#   configs/localmim/segmentation/vitb_hog_1600e_upernet-ms_ade20k.py FINETUNED.pth 8
_base_ = [
    "../../_base_/models/upernet_vitb.py",
    "../../_base_/datasets/ade20k_512.py",
    "../../_base_/recipes/segmentation_160k.py",
]

pretrained = "work_dirs/localmim/vitb_hog_1600e/epoch_1600.pth"

model = dict(
    _delete_=True,
    **_base_.tta_model,
    module=dict(
        _base_.model,
        backbone=dict(
            _base_.model.backbone,
            # The blocks that pre-training supervised.
            out_indices=(1, 3, 9, 11),
            init_cfg=dict(_base_.model.backbone.init_cfg, checkpoint=pretrained),
        ),
        neck=dict(_base_.model.neck, pool="avg"),
    ),
)
test_dataloader = dict(dataset=dict(pipeline=_base_.tta_pipeline))
optim_wrapper = dict(optimizer=dict(lr=4e-4), paramwise_cfg=dict(layer_decay_rate=0.65))
