# MAE on ViT-B/16: normalised pixels of the removed patches, predicted from the last
# block by a decoder of 8. The other methods on ViT-B start from this file.
model = dict(
    type="MaskedImageModel",
    data_preprocessor=dict(
        type="MIMDataPreprocessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
    ),
    mask_sampler=dict(type="RandomPatchMask", mask_ratio=0.75),
    backbone=dict(
        type="MIMVisionTransformer",
        arch="base",
        img_size=224,
        patch_size=16,
        # Further blocks to supervise, zero-based.
        taps=(),
    ),
    neck=dict(type="MIMDecoder", embed_dims=512, depth=8, num_heads=16),
    target_generator=dict(type="PixelTarget", norm_pix=True),
    head=dict(type="ReconstructionHead", criterion="L2"),
)
