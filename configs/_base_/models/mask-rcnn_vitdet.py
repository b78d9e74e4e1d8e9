# ViTDet's Mask R-CNN (https://arxiv.org/abs/2203.16527, section 3) on ViT-B/16.
_base_ = ["./mask-rcnn_fpn.py", "./vitdet.py"]

model = dict(
    **_base_.vitdet,
    roi_head=dict(
        bbox_head=dict(
            type="Shared4Conv1FCBBoxHead",
            conv_out_channels=256,
            norm_cfg=_base_.norm,
        ),
        mask_head=dict(norm_cfg=_base_.norm),
    ),
)
