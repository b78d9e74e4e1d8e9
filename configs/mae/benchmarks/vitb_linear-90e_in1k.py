# Linear probe of MAE, ViT-B/16, 90 epochs on ImageNet-1K.
# Paper: MAE, https://arxiv.org/abs/2111.06377, appendix A.1, table 10.
# Expected: 68.0 top-1 (the paper's, after 1600 epochs). Not reproduced here.
# Global batch size: 16384 (8 GPUs x 2048); the lr scales to the real one.
# Command: tools/dist_train.sh \
#   configs/mae/benchmarks/vitb_linear-90e_in1k.py 8 \
#   --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
_base_ = [
    "../../_base_/models/linear_vitb.py",
    "../../_base_/recipes/linear.py",
]

# The checkpoint of the pre-training, ours as it is, or the official one.
pretrained = "work_dirs/mae/vitb_1600e/epoch_1600.pth"

model = dict(backbone=dict(init_cfg=dict(checkpoint=pretrained)))
