# LocalMIM on HOG, ViT-B/16: blocks 2, 4, 10 and 12 (taps are zero-based, the last block
# needs none) reconstruct cells of 4, 8, 16 and 32 pixels.
model = dict(
    type="LocalMIM",
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
        taps=(1, 3, 9),
    ),
    neck=dict(type="MultiScaleDecoder", embed_dims=256, depth=1, num_heads=8),
    target_generator=dict(type="HOGTarget", nbins=9, cell_size=(4, 8, 16, 32)),
    head=dict(type="ReconstructionHead", criterion="L2"),
)
