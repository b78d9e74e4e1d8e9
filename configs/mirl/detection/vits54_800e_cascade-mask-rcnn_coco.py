# Cascade Mask R-CNN on COCO from MIRL's ViT-S-54/16, 100 epochs at 1024 pixels.
# Paper: MIRL, https://arxiv.org/abs/2309.14136; its recipe and figures on COCO are not
# known to us. The recipe is ours: ViTDet's published one for ViT-B
# (https://arxiv.org/abs/2203.16527), the last block of each quarter attending globally
# and a layer decay that leaves the first block as much as there. Not reproduced here.
# Global batch size: 64 (32 GPUs x 2); the lr scales to the real one, the
# number of iterations does not.
# Command: GPUS=32 tools/slurm_train.sh PARTITION JOB \
#   configs/mirl/detection/vits54_800e_cascade-mask-rcnn_coco.py WORK_DIR \
#   --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
_base_ = "../../deepmim/detection/mae_vitb_cascade-mask-rcnn_coco.py"

# The checkpoint of the pre-training, ours as it is, or the official one.
pretrained = "work_dirs/vits54_800e/epoch_800.pth"

model = dict(
    backbone=dict(
        arch=dict(
            embed_dims=384, num_layers=54, num_heads=12, feedforward_channels=1536
        ),
        global_blocks=(12, 26, 39, 53),
        # Every block is computed again in the backward pass: 54 of them fill a GPU.
        with_cp=True,
        init_cfg=dict(checkpoint=pretrained),
    ),
    neck=dict(in_channels=384),
)
# 0.7 over 12 blocks is as much as this over 54.
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.7 ** (13 / 55)))
