# OSTrack on MAE's ViT-Tiny/16 (12 heads), 300 epochs on LaSOT alone, tested on LaSOT.
# Paper: An Experimental Study on Exploring Strong Lightweight Vision Transformers via
# Masked Image Modeling Pre-Training, https://arxiv.org/abs/2404.12210; tracker and
# recipe: OSTrack, https://arxiv.org/abs/2203.11991.
# Expected: unknown; the paper trains on four data sets.
# Global batch size: 128 (4 GPUs x 32); the lr scales to the real one.
# Command: tools/dist_train.sh \
#   configs/distilled/tracking/mae_vitt_lasot-only_300e.py 4 \
#   --cfg-options pretrained=PRETRAINED.pth data_root=/data/lasot
# Known deviations: bf16 where the GPU has it (the official run: fp32); no validation.
_base_ = [
    "../../_base_/models/tracker_vitt.py",
    "../../_base_/datasets/tracking_lasot.py",
    "../../_base_/recipes/tracking_300e.py",
]

pretrained = "work_dirs/distilled/mae_vitt_400e/epoch_400.pth"

model = dict(backbone=dict(init_cfg=dict(checkpoint=pretrained)))
