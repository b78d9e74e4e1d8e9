# Fine-tuning of LocalMIM Swin-B (pixels, 400 epochs) on ImageNet-1K, 100 epochs.
# Paper: LocalMIM, https://arxiv.org/abs/2303.05251, fine-tuning recipes of the official
# README.
# Expected: 84.0 top-1 (the official README's). Not reproduced here.
# Global batch size: 1024 (8 GPUs x 128); kept on fewer GPUs by accumulation.
# Command: tools/dist_train.sh \
#   configs/localmim/benchmarks/swinb_pixel_400e_finetune-100e_in1k.py 8 \
#   --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
# Known deviations: bf16 instead of fp16 with loss scaling; the weights of patch
# merging keep the meaning they were trained with, where the official code swaps two
# blocks.
_base_ = [
    "../../_base_/models/classifier_swinb.py",
    "../../_base_/recipes/finetune.py",
]

pretrained = "work_dirs/localmim/swinb_pixel_400e/epoch_400.pth"

model = dict(backbone=dict(init_cfg=dict(checkpoint=pretrained)))
optim_wrapper = dict(
    optimizer=dict(lr=0.004),
    # Bias tables are decayed here, as in the official code.
    paramwise_cfg=dict(layer_decay_rate=0.9),
)
warmup_epochs = 20
param_scheduler = [
    {**_base_.param_scheduler[0], "end": warmup_epochs},
    {
        **_base_.param_scheduler[1],
        "begin": warmup_epochs,
        # 2.5e-7 of a peak of 0.004, before the layer decay, as in the official code.
        "eta_min_ratio": 2.5e-7 / 0.004,
    },
]
