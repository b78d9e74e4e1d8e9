# A classifier on the ViT-Tiny/16 of the lightweight studies: width 192, 12 heads (not
# 3), a weak mixup.
model = dict(
    type="MIMImageClassifier",
    data_preprocessor=dict(
        num_classes=1000,
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=True,
    ),
    backbone=dict(
        type="VisionTransformer",
        # mmpretrain's "deit-tiny" has the same tensors and 3 heads: weights would load
        # into it and give garbage.
        arch=dict(
            embed_dims=192, num_layers=12, num_heads=12, feedforward_channels=768
        ),
        img_size=224,
        patch_size=16,
        # Mean of the patch tokens of the last block, un-normed, then its own norm.
        out_type="avg_featmap",
        final_norm=False,
        init_cfg=dict(type="Pretrained", checkpoint=None, prefix="backbone."),
    ),
    head=dict(
        type="LinearClsHead",
        num_classes=1000,
        in_channels=192,
        loss=dict(type="CrossEntropyLoss", use_soft=True),
        init_cfg=dict(type="TruncNormal", layer="Linear", std=0.02),
    ),
    train_cfg=dict(augments=[dict(type="Mixup", alpha=0.2)]),
)
