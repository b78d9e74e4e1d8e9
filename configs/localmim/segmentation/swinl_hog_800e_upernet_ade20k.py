# UperNet on ADE20K from LocalMIM's Swin-L with windows of 14 (HOG, 800 epochs), 160k
# iterations at 512.
# Paper: LocalMIM, https://arxiv.org/abs/2303.05251; the released code has no
# segmentation with Swin-L. The recipe is ours, that of
# swinb_hog_400e_upernet_ade20k.py. Not reproduced here.
# Global batch size: 16 (8 GPUs x 2); the lr scales to the real one.
# Command: tools/dist_train.sh \
#   configs/localmim/segmentation/swinl_hog_800e_upernet_ade20k.py 8 \
#   --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
_base_ = [
    "../../_base_/models/upernet_swinb.py",
    "../../_base_/datasets/ade20k_512.py",
    "../../_base_/recipes/segmentation_160k.py",
]

# The checkpoint of the pre-training, ours as it is, or the official one.
pretrained = "work_dirs/localmim/swinl_hog_800e/epoch_800.pth"

model = dict(
    backbone=dict(
        arch="large",
        window_size=14,
        # As in pre-training, where the last stage's map has no more.
        stage_cfgs=[dict(), dict(), dict(), dict(window_size=7)],
        init_cfg=dict(checkpoint=pretrained),
    ),
    decode_head=dict(in_channels=[192, 384, 768, 1536]),
    auxiliary_head=dict(in_channels=768),
)
optim_wrapper = _base_.swin_optim_wrapper
