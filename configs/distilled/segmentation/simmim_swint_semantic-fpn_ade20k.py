# Semantic FPN on ADE20K from SimMIM's Swin-Tiny of width 48, 160k iterations at 512.
# Paper: https://arxiv.org/abs/2404.12210, which has no segmentation with Swin. The
# recipe is ours: that of Hiera-Tiny (mae-lite_hierat_semantic-fpn_ade20k.py), tables of
# relative positions not decayed. Not reproduced here.
# Global batch size: 16 (8 GPUs x 2); the lr scales to the real one.
# Command: tools/dist_train.sh \
#   configs/distilled/segmentation/simmim_swint_semantic-fpn_ade20k.py 8 \
#   --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
_base_ = "./mae-lite_hierat_semantic-fpn_ade20k.py"

# The checkpoint of the pre-training, ours as it is, or the official one.
pretrained = "work_dirs/simmim_swint_400e/epoch_400.pth"

model = dict(
    backbone=dict(
        _delete_=True,
        type="mmpretrain.MIMSwinTransformer",
        arch=dict(embed_dims=48, depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24]),
        img_size=512,
        window_size=7,
        # Maps are padded to windows.
        pad_small_map=True,
        out_indices=(0, 1, 2, 3),
        drop_path_rate=0.1,
        # The mask token has no use here.
        init_cfg=dict(type="Pretrained", checkpoint=pretrained, prefix="backbone."),
    ),
    neck=dict(in_channels=[48, 96, 192, 384]),
)
optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys={"relative_position_bias_table": dict(decay_mult=0.0)}
    )
)
