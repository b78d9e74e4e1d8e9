# OSTrack on ViT-Tiny/16 with 12 heads, as the lightweight studies have it: a template
# of 128 pixels and a search region of 256, candidate elimination, a centre head.
model = dict(
    type="OneStreamTracker",
    data_preprocessor=dict(
        type="TrackingDataPreprocessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
    ),
    backbone=dict(
        type="OneStreamVisionTransformer",
        arch=dict(
            embed_dims=192, num_layers=12, num_heads=12, feedforward_channels=768
        ),
        # Of pre-training; its position embedding is resized to both grids.
        img_size=224,
        patch_size=16,
        template_size=128,
        search_size=256,
        # Zero-based; each keeps 70 % of the search tokens.
        elimination_blocks=(3, 6, 9),
        keep_ratios=(0.7, 0.7, 0.7),
        drop_path_rate=0.1,
        init_cfg=dict(type="Pretrained", checkpoint=None, prefix="backbone."),
    ),
    head=dict(type="CentreHead", channels=256),
    # Sides of template and search region, relative to the square root of the area of
    # the box.
    template_factor=2.0,
    search_factor=4.0,
    giou_weight=2.0,
    l1_weight=5.0,
    focal_weight=1.0,
)
