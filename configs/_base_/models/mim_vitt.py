# MAE on ViT-Tiny/16 as the lightweight studies have it: width 192, 12 heads (not 3),
# and a decoder of one block.
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
        arch=dict(
            embed_dims=192, num_layers=12, num_heads=12, feedforward_channels=768
        ),
        img_size=224,
        patch_size=16,
    ),
    neck=dict(type="MIMDecoder", embed_dims=96, depth=1, num_heads=3),
    target_generator=dict(type="PixelTarget", norm_pix=True),
    head=dict(type="ReconstructionHead", criterion="L2"),
)
