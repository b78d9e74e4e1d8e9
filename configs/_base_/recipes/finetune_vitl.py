# Fine-tuning of ViT-L on ImageNet as the fine-tuning page of MAE's released code: 50
# epochs of 1024 images per step, 1e-3 per 256 images, layer decay 0.75. Drop path, 0.2,
# belongs to the model.
_base_ = [
    "../datasets/imagenet_finetune.py",
    "../schedules/finetune.py",
    "../default_runtime.py",
]

train_dataloader = dict(sampler=dict(seed=0))
optim_wrapper = dict(
    optimizer=dict(lr=1e-3 * 1024 / 256), paramwise_cfg=dict(layer_decay_rate=0.75)
)
param_scheduler = [
    _base_.param_scheduler[0],
    # 1e-6 of a peak of 4e-3, before the layer decay, as in the official code.
    {**_base_.param_scheduler[1], "eta_min_ratio": 1e-6 / (1e-3 * 1024 / 256)},
]
train_cfg = dict(max_epochs=50)
randomness = dict(seed=0, diff_rank_seed=True)
default_hooks = dict(checkpoint=dict(interval=1, max_keep_ckpts=3, save_best="auto"))
