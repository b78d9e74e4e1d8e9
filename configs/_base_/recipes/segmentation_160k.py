# Segmentation, UperNet and semantic FPN alike, as DeepMIM, LocalMIM and the lightweight
# study do it on ADE20K: mmseg's names come first, iterations are counted. Model and
# data are to be added.
_base_ = ["../schedules/ade20k_160k.py", "../default_runtime.py"]

default_scope = "mmseg"

default_hooks = dict(
    logger=dict(type="LoggerHook", interval=50, log_metric_by_epoch=False),
    # A checkpoint with every validation, and every 30 minutes; the best one is kept as
    # well.
    checkpoint=dict(
        type="AtomicCheckpointHook",
        by_epoch=False,
        interval=16000,
        max_keep_ckpts=3,
        save_best="mIoU",
    ),
    # Draws the maps of test images with
    # --cfg-options default_hooks.visualization.draw=True
    visualization=dict(type="SegVisualizationHook"),
)
custom_hooks = [
    # Compares classes, label maps and image sizes with the model before the first step.
    dict(type="CheckSegmentationHook"),
    *_base_.custom_hooks,
]
visualizer = dict(type="SegLocalVisualizer")
log_processor = dict(by_epoch=False)

# The model around a trained one that averages over scales and flips; see the configs
# named `-ms`.
tta_model = dict(_scope_="mmseg", type="SegTTAModel")
