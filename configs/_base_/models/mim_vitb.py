# DeepMIM on pixels, ViT-B/16: decoders of 4 blocks on blocks 6, 8, 10 (taps are
# zero-based) and on the last block. Without taps this is MAE.
model = dict(
    type="DeepMIM",
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
        taps=(5, 7, 9),
    ),
    neck=dict(type="MIMDecoder", embed_dims=512, depth=4, num_heads=16),
    target_generator=dict(type="PixelTarget", norm_pix=True),
    head=dict(type="ReconstructionHead", criterion="L2"),
)
