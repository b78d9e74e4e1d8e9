# Transfer of ViT-Tiny/16 to small data sets as the lightweight studies do it: 50 epochs
# of 512 images per step with SGD, no mixup. The data set is to be added.
_base_ = [
    "../models/classifier_vitt.py",
    "../schedules/finetune.py",
    "../default_runtime.py",
]

model = dict(head=dict(loss=dict(use_soft=False)), train_cfg=None)
optim_wrapper = dict(
    optimizer=dict(
        _delete_=True,
        type="SGD",
        lr=0.1,
        momentum=0.9,
        nesterov=True,
        weight_decay=0.0,
    ),
    paramwise_cfg=dict(layer_decay_rate=0.75),
    clip_grad=dict(max_norm=1.0),
)
warmup_epochs = 10
param_scheduler = [
    {**_base_.param_scheduler[0], "end": warmup_epochs},
    {
        **_base_.param_scheduler[1],
        "begin": warmup_epochs,
        "eta_min_ratio": 1e-6 / 0.1,
    },
]
train_cfg = dict(max_epochs=50, val_interval=10)
auto_scale_lr = dict(base_batch_size=512)
randomness = dict(seed=0, diff_rank_seed=True)
default_hooks = dict(checkpoint=dict(interval=1, max_keep_ckpts=3, save_best="auto"))
