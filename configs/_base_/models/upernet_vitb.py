# UperNet on ViT-B/16 as BEiT's code for segmentation has it, from which DeepMIM's and
# LocalMIM's come: a table of relative positions (from zero) and layer scale (from one)
# in every block, un-normed maps of four blocks brought to strides 4, 8, 16 and 32.
model = dict(
    # For mmpretrain's get_model, which builds in its own scope.
    _scope_="mmseg",
    type="EncoderDecoder",
    data_preprocessor=dict(
        type="SegDataPreProcessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        size=(512, 512),
        pad_val=0,
        seg_pad_val=255,
        # Images smaller than the window of the test are padded, too: relative positions
        # are those of one size.
        test_cfg=dict(size=(512, 512)),
    ),
    backbone=dict(
        type="mmpretrain.RelPosVisionTransformer",
        arch=dict(
            embed_dims=768, num_layers=12, num_heads=12, feedforward_channels=3072
        ),
        img_size=512,
        patch_size=16,
        # Queries, keys and values have a bias, as in pre-training.
        bias=True,
        layer_scale_init_value=1.0,
        drop_path_rate=0.1,
        # Zero-based, un-normed.
        out_type="featmap",
        out_indices=(3, 5, 7, 11),
        final_norm=False,
        init_cfg=dict(type="Pretrained", checkpoint=None, prefix="backbone."),
    ),
    neck=dict(
        type="mmpretrain.ViTPyramid",
        in_channels=768,
        norm_cfg=dict(type="SyncBN"),
    ),
    decode_head=dict(
        type="UPerHead",
        in_channels=[768, 768, 768, 768],
        in_index=[0, 1, 2, 3],
        pool_scales=(1, 2, 3, 6),
        channels=768,
        dropout_ratio=0.1,
        num_classes=150,
        norm_cfg=dict(type="SyncBN"),
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss"),
    ),
    auxiliary_head=dict(
        type="FCNHead",
        in_channels=768,
        in_index=2,
        channels=256,
        num_convs=1,
        concat_input=False,
        dropout_ratio=0.1,
        num_classes=150,
        norm_cfg=dict(type="SyncBN"),
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", loss_weight=0.4),
    ),
    test_cfg=dict(mode="slide", crop_size=(512, 512), stride=(341, 341)),
)
