# A linear classifier on the frozen class token of ViT-B/16, as MAE (appendix A.1,
# table 10).
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
        arch="base",
        img_size=224,
        patch_size=16,
        frozen_stages=12,
        out_type="cls_token",
        final_norm=True,
        init_cfg=dict(type="Pretrained", checkpoint=None, prefix="backbone."),
    ),
    # A batch norm without affine parameters in front of the linear layer.
    neck=dict(type="ClsBatchNormNeck", input_features=768),
    head=dict(
        type="VisionTransformerClsHead",
        num_classes=1000,
        in_channels=768,
        loss=dict(type="CrossEntropyLoss"),
        init_cfg=dict(type="TruncNormal", layer="Linear", std=0.01),
    ),
)
