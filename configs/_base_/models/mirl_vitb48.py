# MIRL, ViT-B-48/16: six segments of 8 blocks (taps name the last block of each but the
# last, zero-based) and the embedding, each with a cross-attention decoder of 2 blocks;
# decoders 1 and 6, 2 and 5, 3 and 4 are pairs whose sum is compared with the pixels.
# The pairs may sum to another target than the paper's, one for all or a list with one
# per pair: HOGTarget, or CLIPTarget with criterion="cosine" in the head.
# Less memory for about a third more time, block by block and decoder by decoder:
#   --cfg-options model.backbone.with_cp=True model.neck.with_cp=True
model = dict(
    type="MIRL",
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
            embed_dims=768, num_layers=48, num_heads=12, feedforward_channels=3072
        ),
        img_size=224,
        patch_size=16,
        taps=(7, 15, 23, 31, 39),
        tap_embedding=True,
    ),
    neck=dict(
        type="MIRLDecoder", embed_dims=512, depth=2, num_heads=16, weight_norm=True
    ),
    target_generator=dict(type="PixelTarget", norm_pix=True),
    head=dict(type="ResidualPairHead", criterion="L2"),
)
