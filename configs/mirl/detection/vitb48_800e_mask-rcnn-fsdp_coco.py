# Mask R-CNN on COCO from MIRL's ViT-B-48/16 with parameters, gradients and optimiser
# states shared out over the GPUs (fully sharded data parallel); else the recipe, ours,
# of vitb48_800e_mask-rcnn_coco.py. Paper: MIRL, https://arxiv.org/abs/2309.14136. Not
# reproduced here.
# Global batch size: 64 (32 GPUs x 2); the lr scales to the real one.
# Command: tools/dist_train.sh \
#   configs/mirl/detection/vitb48_800e_mask-rcnn-fsdp_coco.py 8 \
#   --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
_base_ = "./vitb48_800e_mask-rcnn_coco.py"

runner_type = "FlexibleRunner"
strategy = dict(
    type="FSDPStrategy",
    model_wrapper=dict(
        type="MMFullyShardedDataParallel",
        use_orig_params=True,
        # Every block of the encoder (7.1 million parameters) is a unit of its own.
        auto_wrap_policy=dict(
            type="torch.distributed.fsdp.wrap.size_based_auto_wrap_policy",
            min_num_params=5_000_000,
        ),
    ),
    # Checkpoints are whole, as those of any other run.
    state_dict_cfg="full",
)
