# Pre-training on ImageNet, or any folder of images, with pixels as targets: pictures of
# reconstructions are drawn.
_base_ = [
    "../datasets/imagenet_pretrain.py",
    "../schedules/pretrain.py",
    "../default_runtime.py",
]

custom_hooks = [
    *_base_.custom_hooks,
    # work_dir/reconstructions/epoch_020.png and so on, and the visualizer's backends.
    dict(type="ReconstructionHook", interval=20),
]
