# Fine-tuning on ImageNet as the lightweight studies did it before they improved it for
# small models: MAE's augmentation, a peak of 4e-3 (1e-3 per 256 images), layer decay
# 0.85, validated every 10 epochs.
_base_ = [
    "../datasets/imagenet_finetune.py",
    "../schedules/finetune.py",
    "../default_runtime.py",
]

train_dataloader = dict(sampler=dict(seed=0))
optim_wrapper = dict(
    optimizer=dict(lr=1e-3 * 1024 / 256), paramwise_cfg=dict(layer_decay_rate=0.85)
)
param_scheduler = [
    _base_.param_scheduler[0],
    # 1e-6 of a peak of 4e-3, before the layer decay, as in the official code.
    {**_base_.param_scheduler[1], "eta_min_ratio": 1e-6 / (1e-3 * 1024 / 256)},
]
train_cfg = dict(val_interval=10)
randomness = dict(seed=0, diff_rank_seed=True)
default_hooks = dict(checkpoint=dict(interval=1, max_keep_ckpts=3, save_best="auto"))
