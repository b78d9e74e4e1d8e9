# UperNet on ADE20K from a DeepMIM or MAE pixel model, ViT-L/16, 160k iterations at 512.
# Paper: DeepMIM, https://arxiv.org/abs/2303.08817, which has no ViT-L. The recipe is
# ours: that of mae_vitb_upernet_ade20k.py with maps of the blocks at the same relative
# depths, a layer decay that leaves the first block as much as there and drop path 0.2.
# Not reproduced here.
# Global batch size: 16 (8 GPUs x 2); the lr scales to the real one.
# Command: tools/dist_train.sh \
#   configs/deepmim/segmentation/mae_vitl_upernet_ade20k.py 8 \
#   --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
_base_ = "./mae_vitb_upernet_ade20k.py"

# The checkpoint of the pre-training, ours as it is.
pretrained = "work_dirs/mae_vitl_1600e/epoch_1600.pth"

model = dict(
    backbone=dict(
        arch=dict(
            embed_dims=1024, num_layers=24, num_heads=16, feedforward_channels=4096
        ),
        out_indices=(7, 11, 15, 23),
        drop_path_rate=0.2,
        init_cfg=dict(checkpoint=pretrained),
    ),
    neck=dict(in_channels=1024),
    decode_head=dict(in_channels=[1024, 1024, 1024, 1024], channels=1024),
    auxiliary_head=dict(in_channels=1024),
)
# 0.65 over 12 blocks is as much as this over 24.
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.65 ** (13 / 25)))
