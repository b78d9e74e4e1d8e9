# UperNet on ADE20K from a DeepMIM pixel model, ViT-S/16, 160k iterations at 512.
# Paper: DeepMIM, https://arxiv.org/abs/2303.08817, which has no ViT-S. The recipe is
# ours, that of mae_vitb_upernet_ade20k.py in narrower heads. Not reproduced here.
# Global batch size: 16 (8 GPUs x 2); the lr scales to the real one.
# Command: tools/dist_train.sh \
#   configs/deepmim/segmentation/mae_vits_upernet_ade20k.py 8 \
#   --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
_base_ = [
    "../../_base_/models/upernet_vitb.py",
    "../../_base_/datasets/ade20k_512.py",
    "../../_base_/recipes/segmentation_160k.py",
]

# The checkpoint of the pre-training, ours as it is.
pretrained = "work_dirs/deepmim/mae_vits_1600e/epoch_1600.pth"

model = dict(
    backbone=dict(
        arch=dict(embed_dims=384, num_heads=6, feedforward_channels=1536),
        init_cfg=dict(checkpoint=pretrained),
    ),
    neck=dict(in_channels=384),
    decode_head=dict(in_channels=[384, 384, 384, 384], channels=512),
    auxiliary_head=dict(in_channels=384),
)
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.65))
