# UperNet on ADE20K from LocalMIM's ViT-B/16 (HOG, 1600 epochs), 160k iterations at 512.
# Paper: LocalMIM, https://arxiv.org/abs/2303.05251; recipe of the released code. Its
# table by backbone is not known to us (the best entry is 49.5 mIoU, as quoted by third
# parties). Not reproduced here.
# Global batch size: 16 (8 GPUs x 2); the lr scales to the real one.
# Command: tools/dist_train.sh \
#   configs/localmim/segmentation/vitb_hog_1600e_upernet_ade20k.py 8 \
#   --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
# Known deviations: bf16 instead of fp16 with loss scaling; images smaller than the
# window of the test are padded.
_base_ = [
    "../../_base_/models/upernet_vitb.py",
    "../../_base_/datasets/ade20k_512.py",
    "../../_base_/recipes/segmentation_160k.py",
]

# The checkpoint of the pre-training, ours as it is, or the official one.
pretrained = "work_dirs/localmim/vitb_hog_1600e/epoch_1600.pth"

model = dict(
    # The blocks that pre-training supervised.
    backbone=dict(out_indices=(1, 3, 9, 11), init_cfg=dict(checkpoint=pretrained)),
    neck=dict(pool="avg"),
)
optim_wrapper = dict(optimizer=dict(lr=4e-4), paramwise_cfg=dict(layer_decay_rate=0.65))
