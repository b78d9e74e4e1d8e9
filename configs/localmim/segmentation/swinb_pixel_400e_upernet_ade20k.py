# UperNet on ADE20K from LocalMIM's Swin-B (pixels, 400 epochs), 160k iterations at 512.
# Paper: LocalMIM, https://arxiv.org/abs/2303.05251; recipe of the released code. Its
# table by backbone is not known to us. Not reproduced here.
# Global batch size: 16 (8 GPUs x 2); the lr scales to the real one.
# Command: tools/dist_train.sh \
#   configs/localmim/segmentation/swinb_pixel_400e_upernet_ade20k.py 8 \
#   --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
# Known deviations: those of swinb_hog_400e_upernet_ade20k.py.
_base_ = [
    "../../_base_/models/upernet_swinb.py",
    "../../_base_/datasets/ade20k_512.py",
    "../../_base_/recipes/segmentation_160k.py",
]

pretrained = "work_dirs/localmim/swinb_pixel_400e/epoch_400.pth"

model = dict(backbone=dict(init_cfg=dict(checkpoint=pretrained)))
optim_wrapper = _base_.swin_optim_wrapper
