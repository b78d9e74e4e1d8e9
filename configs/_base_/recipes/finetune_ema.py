# Fine-tuning of deep ViTs on ImageNet as MIRL does it: the recipe of finetune.py with
# 20 epochs of warm-up, 2048 images per step and an average of the weights.
_base_ = [
    "../datasets/imagenet_finetune.py",
    "../schedules/finetune.py",
    "../default_runtime.py",
]

optim_wrapper = dict(
    optimizer=dict(lr=7.5e-4 * 2048 / 256), paramwise_cfg=dict(layer_decay_rate=0.88)
)
warmup_epochs = 20
param_scheduler = [
    {**_base_.param_scheduler[0], "end": warmup_epochs},
    {
        **_base_.param_scheduler[1],
        "begin": warmup_epochs,
        # 1e-6 of a peak of 6e-3, before the layer decay, as in the official code.
        "eta_min_ratio": 1e-6 / (7.5e-4 * 2048 / 256),
    },
]
auto_scale_lr = dict(base_batch_size=2048)
randomness = dict(seed=888, diff_rank_seed=True)
train_dataloader = dict(sampler=dict(seed=888))
default_hooks = dict(checkpoint=dict(interval=1, max_keep_ckpts=3, save_best="auto"))
custom_hooks = [
    *_base_.custom_hooks,
    # The official average of the weights, which is evaluated and stored. mmengine's,
    # which has a constant decay and counts iterations, is
    # dict(type="EMAHook", momentum=2e-4, update_buffers=True).
    dict(type="StepEMAHook", ema_type="WarmupEMA", momentum=2e-4, update_buffers=True),
]
