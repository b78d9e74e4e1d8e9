# DeepMIM on hybrid targets, ViT-B/16: shallow levels are compared with a mix of the
# true pixels and what a frozen MAE makes of the same visible patches.
_base_ = "./mim_vitb.py"

# A trained MAE, encoder and decoder: of configs/mae/vitb_1600e.py, or one of
# facebookresearch/mae (with norm_pix as it was trained).
teacher = dict(
    type="DeepMIM",
    data_preprocessor=_base_.model.data_preprocessor,
    mask_sampler=_base_.model.mask_sampler,
    backbone=dict(
        type="MIMVisionTransformer", arch="base", img_size=224, patch_size=16
    ),
    neck=dict(type="MIMDecoder", embed_dims=512, depth=8, num_heads=16),
    target_generator=dict(type="PixelTarget", norm_pix=True),
    head=dict(type="ReconstructionHead", criterion="L2"),
)

model = dict(
    target_generator=dict(
        _delete_=True,
        type="HybridTarget",
        # Share of the true pixels at blocks 6, 8, 10 and the last.
        alpha=(0, 1 / 3, 2 / 3, 1),
        teacher=teacher,
        checkpoint="work_dirs/vitb_1600e/epoch_1600.pth",
    )
)
