# Mask R-CNN on COCO from LocalMIM ViT-L (HOG, 800 epochs), 100 epochs at 1024.
# Paper: LocalMIM, https://arxiv.org/abs/2303.05251; it is not known to us whether it
# has detection with this backbone. The recipe is ours, that of DeepMIM's
# mae_vitl_mask-rcnn_coco.py. Not reproduced here.
# Global batch size: 64 (32 GPUs x 2); the lr scales to the real one, the
# number of iterations does not.
# Command: GPUS=32 tools/slurm_train.sh PARTITION JOB \
#   configs/localmim/detection/vitl_hog_800e_mask-rcnn_coco.py WORK_DIR \
#   --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
_base_ = "../../deepmim/detection/mae_vitl_mask-rcnn_coco.py"

# The checkpoint of the pre-training, ours as it is, or the official one.
pretrained = "work_dirs/vitl_hog_800e/epoch_800.pth"

model = dict(backbone=dict(init_cfg=dict(checkpoint=pretrained)))
