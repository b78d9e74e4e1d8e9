# Fine-tuning of LocalMIM ViT-B/16 (HOG, 100 epochs) on ImageNet-1K, 100 epochs.
# Paper: LocalMIM, https://arxiv.org/abs/2303.05251, fine-tuning recipes of the official
# README.
# Expected: 83.3 top-1 (a third party's account of the paper). Not reproduced here.
# Global batch size: 1024 (8 GPUs x 128); the lr scales to the real one.
# Command: tools/dist_train.sh \
#   configs/localmim/benchmarks/vitb_hog_100e_finetune-100e_in1k.py 8 \
#   --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
# Known deviations: bf16 in place of fp16 with loss scaling; training crops are bicubic,
# as the official script means them (with its timm they come out bilinear).
_base_ = "./vitb_hog_1600e_finetune-100e_in1k.py"

# The checkpoint of the pre-training, ours as it is.
pretrained = "work_dirs/vitb_hog_100e/epoch_100.pth"

model = dict(backbone=dict(init_cfg=dict(checkpoint=pretrained)))
optim_wrapper = dict(
    optimizer=dict(lr=0.004), paramwise_cfg=dict(layer_decay_rate=0.75)
)
param_scheduler = [
    _base_.param_scheduler[0],
    {**_base_.param_scheduler[1], "eta_min_ratio": 1e-6 / 0.004},
]
