# MAE on the Hiera-Tiny of the lightweight studies: width 46, 12 blocks in four stages,
# and a decoder of one block that reads three stages, fused.
model = dict(
    type="MaskedImageModel",
    data_preprocessor=dict(
        type="MIMDataPreprocessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
    ),
    # 20 of the 7x7 units of 32 pixels; Hiera's authors remove 0.6.
    mask_sampler=dict(type="RandomPatchMask", mask_ratio=0.4),
    backbone=dict(
        type="MIMHiera",
        arch=dict(embed_dims=46, depths=(1, 2, 7, 2), num_heads=1),
        img_size=224,
    ),
    neck=dict(type="FusionDecoder", embed_dims=96, depth=1, num_heads=3),
    target_generator=dict(type="PixelTarget", norm_pix=True, cell_size=16),
    head=dict(type="ReconstructionHead", criterion="L2"),
)
