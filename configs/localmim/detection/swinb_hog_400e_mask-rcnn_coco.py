# Mask R-CNN on COCO from LocalMIM Swin-B (HOG, 400 epochs), 36 epochs.
# Paper: LocalMIM, https://arxiv.org/abs/2303.05251, has Mask R-CNN results; its recipe
# and figures for this backbone are not known to us. The recipe is ours, that of Swin
# Transformer's Mask R-CNN (https://arxiv.org/abs/2103.14030): multi-scale, 3x, AdamW,
# drop path 0.3. Not reproduced here.
# Global batch size: 16 (8 GPUs x 2); the lr scales to the real one.
# Command: tools/dist_train.sh \
#   configs/localmim/detection/swinb_hog_400e_mask-rcnn_coco.py 8 \
#   --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
_base_ = [
    "../../_base_/models/mask-rcnn_fpn.py",
    "../../_base_/datasets/coco_ms-crop.py",
    "../../_base_/schedules/coco_36e.py",
]

# The checkpoint of the pre-training, ours as it is, or the official one.
pretrained = "work_dirs/swinb_hog_400e/epoch_400.pth"

model = dict(
    backbone=dict(
        type="mmpretrain.MIMSwinTransformer",
        arch=dict(embed_dims=128, depths=[2, 2, 18, 2], num_heads=[4, 8, 16, 32]),
        img_size=224,
        window_size=7,
        # Maps are of any size: they are padded to windows.
        pad_small_map=True,
        out_indices=(0, 1, 2, 3),
        drop_path_rate=0.3,
        norm_eps=1e-6,
        # True keeps the inputs of blocks only: less memory, about a third more time.
        with_cp=False,
        init_cfg=dict(type="Pretrained", checkpoint=pretrained, prefix="backbone."),
    ),
    neck=dict(
        type="FPN", in_channels=[128, 256, 512, 1024], out_channels=256, num_outs=5
    ),
)
