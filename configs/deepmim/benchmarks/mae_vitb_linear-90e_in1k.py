# Linear probe of a DeepMIM or MAE pixel model, ViT-B/16, 90 epochs on ImageNet-1K.
# Papers: DeepMIM publishes no linear-probe recipe; this is MAE's
# (https://arxiv.org/abs/2111.06377, appendix A.1, table 10: 68.0 top-1 for MAE ViT-B at
# 1600 epochs, the paper's). Not reproduced here.
# Global batch size: 16384 (8 GPUs x 2048); the lr scales to the real one.
# Command: tools/dist_train.sh \
#   configs/deepmim/benchmarks/mae_vitb_linear-90e_in1k.py 8 \
#   --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
_base_ = [
    "../../_base_/models/linear_vitb.py",
    "../../_base_/recipes/linear.py",
]

pretrained = "work_dirs/deepmim/mae_vitb_1600e/epoch_1600.pth"

model = dict(backbone=dict(init_cfg=dict(checkpoint=pretrained)))
