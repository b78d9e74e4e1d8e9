# ViTDet's Cascade Mask R-CNN: the model of mask-rcnn_vitdet.py with three stages of
# class-agnostic boxes (https://arxiv.org/abs/1906.09756). Loss weights of the stages,
# and a mask head in each, are mmdet's.
_base_ = ["./mask-rcnn_fpn.py", "./vitdet.py"]

stage = dict(
    type="Shared4Conv1FCBBoxHead",
    in_channels=256,
    conv_out_channels=256,
    fc_out_channels=1024,
    roi_feat_size=7,
    num_classes=80,
    norm_cfg=_base_.norm,
    reg_class_agnostic=True,
    loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
    loss_bbox=dict(type="L1Loss", loss_weight=1.0),
)
coder = dict(type="DeltaXYWHBBoxCoder", target_means=[0.0, 0.0, 0.0, 0.0])
sampler = dict(
    type="RandomSampler",
    num=512,
    pos_fraction=0.25,
    neg_pos_ub=-1,
    add_gt_as_proposals=True,
)
assigner = dict(type="MaxIoUAssigner", match_low_quality=False, ignore_iof_thr=-1)

model = dict(
    type="CascadeRCNN",
    **_base_.vitdet,
    roi_head=dict(
        type="CascadeRoIHead",
        num_stages=3,
        stage_loss_weights=[1, 0.5, 0.25],
        bbox_head=[
            dict(
                bbox_coder=dict(target_stds=[0.1, 0.1, 0.2, 0.2], **coder),
                **stage,
            ),
            dict(
                bbox_coder=dict(target_stds=[0.05, 0.05, 0.1, 0.1], **coder),
                **stage,
            ),
            dict(
                bbox_coder=dict(target_stds=[0.033, 0.033, 0.067, 0.067], **coder),
                **stage,
            ),
        ],
        mask_head=dict(norm_cfg=_base_.norm),
    ),
    train_cfg=dict(
        rpn_proposal=dict(max_per_img=2000),
        rcnn=[
            dict(
                assigner=dict(pos_iou_thr=iou, neg_iou_thr=iou, min_pos_iou=iou)
                | assigner,
                sampler=sampler,
                mask_size=28,
                pos_weight=-1,
                debug=False,
            )
            for iou in (0.5, 0.6, 0.7)
        ],
    ),
)
