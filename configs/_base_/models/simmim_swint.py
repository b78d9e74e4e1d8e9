# SimMIM on the Swin-Tiny of the lightweight studies: width 48 (not 96), heads of 16
# channels, and a decoder of one narrow Swin block.
model = dict(
    type="MaskedImageModel",
    data_preprocessor=dict(
        type="MIMDataPreprocessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
    ),
    # 30 of the 7x7 cells of 32 pixels.
    mask_sampler=dict(type="RandomPatchMask", mask_ratio=0.6),
    backbone=dict(
        type="SimMIMSwin",
        arch=dict(embed_dims=48, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24)),
        img_size=224,
        window_size=7,
        # The released code leaves it at the default of Swin's code.
        drop_path_rate=0.1,
    ),
    neck=dict(type="SimMIMDecoder", embed_dims=96, depth=1, num_heads=3, window_size=7),
    # Of the normalised image, not of each patch.
    target_generator=dict(type="PixelTarget", norm_pix=False, cell_size=32),
    head=dict(type="ReconstructionHead", criterion="L1"),
)
