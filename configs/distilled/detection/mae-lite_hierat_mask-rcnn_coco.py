# Mask R-CNN on COCO from D-MAE's Hiera-Tiny (width 46), FPN, 100 epochs at 640 pixels.
# Paper: https://arxiv.org/abs/2404.12210, which has no detection with Hiera. The recipe
# is ours: that of its ViT-Tiny (d2-mae_vitt_mask-rcnn_coco.py) with a feature pyramid
# network on Hiera's four stages. Not reproduced here.
# Global batch size: 64 (8 GPUs x 8); the lr scales to the real one.
# Command: tools/dist_train.sh \
#   configs/distilled/detection/mae-lite_hierat_mask-rcnn_coco.py 8 \
#   --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
_base_ = [
    "../../_base_/models/mask-rcnn_fpn.py",
    "../../_base_/datasets/coco_lsj-640.py",
    "../../_base_/schedules/vitdet_100e.py",
]

# The checkpoint of the pre-training, ours as it is, or the official one.
pretrained = "work_dirs/mae-lite_hierat_400e/epoch_400.pth"

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
        init_cfg=dict(type="Pretrained", checkpoint=pretrained, prefix="backbone."),
    ),
    neck=dict(type="FPN", in_channels=[46, 92, 184, 368], out_channels=256, num_outs=5),
)
optim_wrapper = dict(
    optimizer=dict(weight_decay=0.05), paramwise_cfg=dict(layer_decay_rate=1.0)
)
