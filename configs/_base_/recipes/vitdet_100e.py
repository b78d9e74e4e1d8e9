# Detection as ViTDet's published recipe: its schedule, mmdet's names first, iterations
# counted. Model and data are to be added.
_base_ = ["../schedules/vitdet_100e.py", "../default_runtime.py"]

default_scope = "mmdet"

default_hooks = dict(
    # Draws boxes and masks of test images with
    # --cfg-options default_hooks.visualization.draw=True
    visualization=dict(type="DetVisualizationHook"),
    # Scores of a validation stand at their iteration, not at an epoch.
    logger=dict(log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=5000, max_keep_ckpts=3),
)
custom_hooks = [
    *_base_.custom_hooks,
    # Compares classes, annotations and image sizes with the model at the start.
    dict(type="CheckDetectionHook"),
]
visualizer = dict(type="DetLocalVisualizer")
log_processor = dict(by_epoch=False)
