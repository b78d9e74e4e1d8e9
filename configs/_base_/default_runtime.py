# What all runs share: registration of this package, hooks, logging, environment.

# Names without a prefix are looked up in mmpretrain first.
default_scope = "mmpretrain"

# Makes the modules known to any tool that reads the config, `mim train` included.
custom_imports = dict(imports=["mim_plugins"], allow_failed_imports=False)

default_hooks = dict(
    # Progress and losses; the losses are read from the device only when logged.
    runtime_info=dict(type="DeferredRuntimeInfoHook"),
    # Time of every iteration and the estimated time that remains.
    timer=dict(type="IterTimerHook"),
    # A log line every 50 iterations.
    logger=dict(type="LoggerHook", interval=50),
    param_scheduler=dict(type="ParamSchedulerHook"),
    # A checkpoint after every epoch, and inside of it every 30 minutes; the newest
    # three are kept.
    checkpoint=dict(
        type="AtomicCheckpointHook", interval=1, interval_minutes=30, max_keep_ckpts=3
    ),
    # Another order of the images in every epoch.
    sampler_seed=dict(type="DistSamplerSeedHook"),
)

custom_hooks = [
    # Converts the checkpoint of load_from, or says why it does not fit the model.
    dict(type="ConvertCheckpointHook"),
    # Images per second on the log line.
    dict(type="ThroughputHook"),
    # Compares images and model before the first step.
    dict(type="CheckInputHook"),
    # Counts images that could not be read, and stops the run if there are too many.
    dict(type="CorruptImageHook"),
    # Skips steps with a NaN or infinite loss or gradient; three in a row end the run.
    dict(type="StopNonFiniteHook"),
    # A progress bar on a terminal.
    dict(type="ProgressBarHook"),
]

env_cfg = dict(
    cudnn_benchmark=False,
    # Loading workers are forked; OpenCV in them uses one thread each.
    mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0),
    # tools/train.py takes gloo where there is no GPU.
    dist_cfg=dict(backend="nccl"),
)

visualizer = dict(
    type="UniversalVisualizer",
    vis_backends=[dict(type="BestEffortVisBackend")],
)

log_processor = dict(window_size=50)
log_level = "INFO"

randomness = dict(seed=0, deterministic=False)

# A checkpoint to start from. With resume=True it would be continued, epoch counter and
# optimizer included; --resume of tools/train.py does that.
load_from = None
resume = False
