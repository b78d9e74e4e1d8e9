# A classifier on a deep ViT/16 of MIRL, ViT-S-54: 54 blocks, 12 heads.
_base_ = "./classifier_vitb.py"

model = dict(
    backbone=dict(
        _delete_=True,
        type="MIMVisionTransformer",
        arch=dict(
            embed_dims=384, num_layers=54, num_heads=12, feedforward_channels=1536
        ),
        img_size=224,
        patch_size=16,
        drop_path_rate=0.1,
        # Trained here, from the fixed table.
        fixed_pos_embed=False,
        # True keeps the inputs of blocks only: less memory, about a third more time.
        with_cp=False,
        # Mean of the patch tokens of the last block, un-normed, then its own norm.
        out_type="avg_featmap",
        final_norm=False,
        init_cfg=dict(type="Pretrained", checkpoint=None, prefix="backbone."),
    ),
    head=dict(in_channels=384),
)
