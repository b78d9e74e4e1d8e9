# The runtime of pre-training: pictures of reconstructions beside what all runs share.
_base_ = "./default_runtime.py"

custom_hooks = [
    *_base_.custom_hooks,
    # work_dir/reconstructions/epoch_020.png and so on, and the visualizer's backends.
    dict(type="ReconstructionHook", interval=20),
]
