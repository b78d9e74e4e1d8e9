# Semantic FPN on ADE20K from D-MAE's Hiera-Tiny (width 46), 160k iterations at 512.
# Paper: https://arxiv.org/abs/2404.12210, which has no segmentation with Hiera. The
# recipe is ours: that of its ViT-Tiny (d2-mae_vitt_semantic-fpn_ade20k.py) with a
# feature pyramid network on Hiera's four stages. Not reproduced here.
# Global batch size: 16 (8 GPUs x 2); the lr scales to the real one.
# Command: tools/dist_train.sh \
#   configs/distilled/segmentation/mae-lite_hierat_semantic-fpn_ade20k.py 8 \
#   --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
_base_ = "./d2-mae_vitt_semantic-fpn_ade20k.py"

# The checkpoint of the pre-training, ours as it is, or the official one.
pretrained = "work_dirs/mae-lite_hierat_400e/epoch_400.pth"

model = dict(
    backbone=dict(
        _delete_=True,
        type="mmpretrain.Hiera",
        arch=dict(embed_dims=46, depths=(1, 2, 7, 2), num_heads=1),
        img_size=512,
        q_pool=3,
        out_type="featmap",
        drop_path_rate=0.1,
        init_cfg=dict(type="Pretrained", checkpoint=pretrained, prefix="backbone."),
    ),
    neck=dict(
        _delete_=True,
        type="FPN",
        in_channels=[46, 92, 184, 368],
        out_channels=256,
        num_outs=4,
    ),
    decode_head=dict(in_channels=[256, 256, 256, 256]),
)
