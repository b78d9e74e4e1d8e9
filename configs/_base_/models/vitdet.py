# What ViTDet's detectors on ViT-B/16 share, a part that mask-rcnn_vitdet.py and
# mask-rcnn_cascade_vitdet.py put into mask-rcnn_fpn.py: windows of 14 patches, blocks
# 2, 5, 8 and 11 (zero-based) attending globally, relative positions, the simple feature
# pyramid, layer norms in all heads. Images are padded to 1024x1024, in training and
# test.
norm = dict(type="mmpretrain.LN2d", eps=1e-6)

vitdet = dict(
    data_preprocessor=dict(pad_size_divisor=1024),
    backbone=dict(
        type="mmpretrain.ViTDet",
        arch=dict(
            embed_dims=768, num_layers=12, num_heads=12, feedforward_channels=3072
        ),
        img_size=1024,
        patch_size=16,
        pretrain_img_size=224,
        window_size=14,
        global_blocks=(2, 5, 8, 11),
        drop_path_rate=0.1,
        # True keeps the inputs of blocks only: less memory, about a third more time.
        with_cp=False,
        init_cfg=dict(type="Pretrained", checkpoint=None, prefix="backbone."),
    ),
    neck=dict(
        type="mmpretrain.SimpleFeaturePyramid",
        in_channels=768,
        out_channels=256,
        norm_cfg=norm,
    ),
    rpn_head=dict(num_convs=2),
)
