# Detection as Swin Transformer's: its 3x schedule, mmdet's names first, epochs counted.
# Model and data are to be added.
_base_ = ["../schedules/coco_36e.py", "../default_runtime.py"]

default_scope = "mmdet"

default_hooks = dict(
    # Draws boxes and masks of test images with
    # --cfg-options default_hooks.visualization.draw=True
    visualization=dict(type="DetVisualizationHook"),
)
custom_hooks = [
    *_base_.custom_hooks,
    # Compares classes, annotations and image sizes with the model at the start.
    dict(type="CheckDetectionHook"),
]
visualizer = dict(type="DetLocalVisualizer")
