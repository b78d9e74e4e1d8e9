# Mask R-CNN on the Hiera-Tiny of the lightweight studies.
_base_ = "./mask-rcnn_fpn.py"

model = dict(
    backbone=dict(
        type="mmpretrain.Hiera",
        arch=dict(embed_dims=46, depths=(1, 2, 7, 2), num_heads=1),
        img_size=640,
        q_pool=3,
        out_type="featmap",
        drop_path_rate=0.0,
        # True keeps the inputs of blocks only: less memory, about a third more time.
        with_cp=False,
        init_cfg=dict(type="Pretrained", checkpoint=None, prefix="backbone."),
    ),
    neck=dict(type="FPN", in_channels=[46, 92, 184, 368], out_channels=256, num_outs=5),
)
