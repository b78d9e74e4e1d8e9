# The classifier of classifier_vitt.py with relative positions in every block.
_base_ = "./classifier_vitt.py"

model = dict(
    backbone=dict(
        _delete_=True,
        type="RelPosVisionTransformer",
        arch=dict(
            embed_dims=192, num_layers=12, num_heads=12, feedforward_channels=768
        ),
        img_size=224,
        patch_size=16,
        # Queries, keys and values keep their pre-trained biases.
        bias=True,
        init_cfg=dict(type="Pretrained", checkpoint=None, prefix="backbone."),
    ),
    # A thousandth of the usual 0.02.
    head=dict(init_cfg=dict(std=2e-5)),
)
