# Mask R-CNN on Swin-B, windows of 7.
_base_ = "./mask-rcnn_fpn.py"

model = dict(
    backbone=dict(
        type="mmpretrain.MIMSwinTransformer",
        arch=dict(embed_dims=128, depths=[2, 2, 18, 2], num_heads=[4, 8, 16, 32]),
        img_size=224,
        window_size=7,
        # Maps are of any size: they are padded to windows.
        pad_small_map=True,
        out_indices=(0, 1, 2, 3),
        drop_path_rate=0.3,
        norm_eps=1e-6,
        # True keeps the inputs of blocks only: less memory, about a third more time.
        with_cp=False,
        init_cfg=dict(type="Pretrained", checkpoint=None, prefix="backbone."),
    ),
    neck=dict(
        type="FPN", in_channels=[128, 256, 512, 1024], out_channels=256, num_outs=5
    ),
)
