# LocalMIM on HOG, Swin-B with windows of 7: its four stages reconstruct cells of 8, 16,
# 32 and 32 pixels.
model = dict(
    type="LocalMIM",
    data_preprocessor=dict(
        type="MIMDataPreprocessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
    ),
    # One mask for all images of a process, as the official code: the encoder packs the
    # visible windows once for the batch. RandomPatchMask gives every image its own.
    mask_sampler=dict(type="SharedPatchMask", mask_ratio=0.75),
    backbone=dict(
        type="MIMSwinTransformer",
        arch="base",
        img_size=224,
        window_size=7,
        drop_path_rate=0.0,
        norm_eps=1e-6,
        # As the released models were trained; "correct" mends the positions of tokens
        # after patch merging.
        merge_coordinates="official",
    ),
    neck=dict(
        type="MultiScaleDecoder", embed_dims=(64, 128, 128, 128), depth=1, num_heads=4
    ),
    target_generator=dict(
        type="HOGTarget", nbins=18, cell_size=(8, 16, 32, 32), bias=True
    ),
    head=dict(type="ReconstructionHead", criterion="L2"),
)
