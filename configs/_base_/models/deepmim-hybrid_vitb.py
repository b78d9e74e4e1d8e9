# DeepMIM on hybrid targets, ViT-B/16: shallow levels are compared with a mix of the
# true pixels and what a frozen MAE makes of the same visible patches.
_base_ = "./mim_vitb.py"

# A trained MAE, encoder and decoder: of configs/mae/vitb_1600e.py, or one of
# facebookresearch/mae (with norm_pix as it was trained).
teacher = _base_.model

model = dict(
    type="DeepMIM",
    backbone=dict(taps=(5, 7, 9)),
    neck=dict(depth=4),
    target_generator=dict(
        _delete_=True,
        type="HybridTarget",
        # Share of the true pixels at blocks 6, 8, 10 and the last.
        alpha=(0, 1 / 3, 2 / 3, 1),
        teacher=teacher,
        checkpoint="work_dirs/mae/vitb_1600e/epoch_1600.pth",
    ),
)
