# What all detection runs share: mmdet's names come first, else as all runs.
_base_ = "./default_runtime.py"

default_scope = "mmdet"

default_hooks = dict(
    # Draws boxes and masks of test images with
    # --cfg-options default_hooks.visualization.draw=True
    visualization=dict(type="DetVisualizationHook"),
)
visualizer = dict(type="DetLocalVisualizer")
