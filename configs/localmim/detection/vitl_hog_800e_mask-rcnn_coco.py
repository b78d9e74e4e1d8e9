# Mask R-CNN on COCO from LocalMIM ViT-L (HOG, 800 epochs), 100 epochs at 1024.
# Paper: LocalMIM, https://arxiv.org/abs/2303.05251; it is not known to us whether it
# has detection with this backbone. The recipe is ours, that of DeepMIM's
# mae_vitl_mask-rcnn_coco.py. Not reproduced here.
# Global batch size: 64 (32 GPUs x 2); kept on fewer GPUs by accumulation, with as many
# more iterations.
# Command: GPUS=32 tools/slurm_train.sh PARTITION JOB \
#   configs/localmim/detection/vitl_hog_800e_mask-rcnn_coco.py WORK_DIR \
#   --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
_base_ = [
    "../../_base_/models/mask-rcnn_vitdet.py",
    "../../_base_/datasets/coco_lsj-1024.py",
    "../../_base_/recipes/vitdet_100e.py",
]

# The checkpoint of the pre-training, ours as it is.
pretrained = "work_dirs/localmim/vitl_hog_800e/epoch_800.pth"

model = dict(
    backbone=dict(
        arch=dict(
            embed_dims=1024, num_layers=24, num_heads=16, feedforward_channels=4096
        ),
        global_blocks=(5, 11, 17, 23),
        drop_path_rate=0.4,
        init_cfg=dict(checkpoint=pretrained),
    ),
    neck=dict(in_channels=1024),
)
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.8))
