# OSTrack on D2-MAE's ViT-Tiny/16 (12 heads), 300 epochs on LaSOT, GOT-10k, COCO and
# TrackingNet, tested on LaSOT.
# Paper: An Experimental Study on Exploring Strong Lightweight Vision Transformers via
# Masked Image Modeling Pre-Training, https://arxiv.org/abs/2404.12210; tracker and
# recipe: OSTrack, https://arxiv.org/abs/2203.11991.
# Expected: 66.1 AUC (the paper's). Not reproduced here.
# Global batch size: 128 (4 GPUs x 32); the lr scales to the real one.
# Command: tools/dist_train.sh \
#   configs/distilled/tracking/d2-mae_vitt_lasot_300e.py 4 \
#   --cfg-options pretrained=PRETRAINED.pth data_root=/data
# Known deviations: bf16 where the GPU has it (the official run: fp32).
_base_ = [
    "../../_base_/models/tracker_vitt.py",
    "../../_base_/datasets/tracking.py",
    "../../_base_/recipes/tracking_300e.py",
]

pretrained = "work_dirs/distilled/d2-mae_vitt_400e/epoch_400.pth"

model = dict(backbone=dict(init_cfg=dict(checkpoint=pretrained)))
