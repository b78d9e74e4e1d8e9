# Fine-tuning of LocalMIM ViT-B/16 (HOG, 100 epochs) on ImageNet-1K, 100 epochs.
# Paper: LocalMIM, https://arxiv.org/abs/2303.05251, fine-tuning recipes of the official
# README.
# Expected: 83.3 top-1 (a third party's account of the paper). Not reproduced here.
# Global batch size: 1024 (8 GPUs x 128); kept on fewer GPUs by accumulation.
# Command: tools/dist_train.sh \
#   configs/localmim/benchmarks/vitb_hog_100e_finetune-100e_in1k.py 8 \
#   --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
# Known deviations: bf16 instead of fp16 with loss scaling; training crops are bicubic,
# as the official script means them (with its timm they come out bilinear).
_base_ = [
    "../../_base_/models/classifier_vitb.py",
    "../../_base_/recipes/finetune.py",
]

# The checkpoint of the pre-training, ours as it is.
pretrained = "work_dirs/localmim/vitb_hog_100e/epoch_100.pth"

model = dict(backbone=dict(init_cfg=dict(checkpoint=pretrained)))
optim_wrapper = dict(
    optimizer=dict(lr=0.004), paramwise_cfg=dict(layer_decay_rate=0.75)
)
warmup_epochs = 20
param_scheduler = [
    {**_base_.param_scheduler[0], "end": warmup_epochs},
    {
        **_base_.param_scheduler[1],
        "begin": warmup_epochs,
        # 1e-6 of a peak of 0.004, before the layer decay, as in the official code.
        "eta_min_ratio": 1e-6 / 0.004,
    },
]
