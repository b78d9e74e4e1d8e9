# Fine-tuning on ImageNet as MAE does it, for DeepMIM, LocalMIM and MAE: 100 epochs of
# 1024 images per step.
_base_ = [
    "../datasets/imagenet_finetune.py",
    "../schedules/finetune.py",
    "../default_runtime.py",
]

randomness = dict(seed=0, diff_rank_seed=True)
train_dataloader = dict(sampler=dict(seed=0))
default_hooks = dict(checkpoint=dict(interval=1, max_keep_ckpts=3, save_best="auto"))
