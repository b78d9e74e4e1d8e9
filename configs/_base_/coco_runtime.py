# What all detection runs share: mmdet's names come first, else as all runs.
_base_ = "./default_runtime.py"

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
