# Fine-tuning of LocalMIM ViT-L/16 (HOG, 800 epochs) on ImageNet-1K, 50 epochs.
# Paper: LocalMIM, https://arxiv.org/abs/2303.05251, fine-tuning recipes of the official
# README.
# Expected: 85.8 top-1 (the official README's). Not reproduced here.
# Global batch size: 1024 (8 GPUs x 64 x 2 accumulated); kept on fewer GPUs by
# accumulation.
# Command: tools/dist_train.sh \
#   configs/localmim/benchmarks/vitl_hog_800e_finetune-50e_in1k.py 8 \
#   --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
# Known deviations: bf16 instead of fp16 with loss scaling; training crops are bicubic,
# as the official script means them (with its timm they come out bilinear).
_base_ = [
    "../../_base_/models/classifier_vitb.py",
    "../../_base_/recipes/finetune.py",
]

# The checkpoint of the pre-training, ours as it is.
pretrained = "work_dirs/localmim/vitl_hog_800e/epoch_800.pth"

model = dict(
    backbone=dict(
        arch="large", drop_path_rate=0.2, init_cfg=dict(checkpoint=pretrained)
    ),
    head=dict(in_channels=1024),
)
optim_wrapper = dict(
    optimizer=dict(lr=0.003), paramwise_cfg=dict(layer_decay_rate=0.75)
)
param_scheduler = [
    _base_.param_scheduler[0],
    {
        **_base_.param_scheduler[1],
        # 1e-6 of a peak of 0.003, before the layer decay, as in the official code.
        "eta_min_ratio": 1e-6 / 0.003,
    },
]
train_cfg = dict(max_epochs=50)
