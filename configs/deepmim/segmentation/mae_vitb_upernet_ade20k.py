# UperNet on ADE20K from DeepMIM's or MAE's ViT-B/16 with pixel targets, 160k iterations
# at 512.
# Paper: DeepMIM, https://arxiv.org/abs/2303.08817, which has no ADE20K result from
# pixels. The recipe is ours: that of its CLIP model with lr 1e-4 and layer decay 0.65,
# as MAE's in the same code base (48.1 mIoU from MAE, as DeepMIM's paper has it). Not
# reproduced here.
# Global batch size: 16 (8 GPUs x 2); the lr scales to the real one.
# Command: tools/dist_train.sh \
#   configs/deepmim/segmentation/mae_vitb_upernet_ade20k.py 8 \
#   --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
# Known deviations: those of mae-clip_vitb_upernet_ade20k.py.
_base_ = [
    "../../_base_/models/upernet_vitb.py",
    "../../_base_/datasets/ade20k_512.py",
    "../../_base_/recipes/segmentation_160k.py",
]

pretrained = "work_dirs/deepmim/mae_vitb_1600e/epoch_1600.pth"

model = dict(backbone=dict(init_cfg=dict(checkpoint=pretrained)))
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.65))
