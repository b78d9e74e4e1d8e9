"""Resizing of relative position biases of windows and grids on load."""

from __future__ import annotations

from typing import Any

from mmengine.logging import MMLogger
from mmpretrain.models.utils import WindowMSA
from torch import nn

from ...checkpoints.layouts.resize import resize_bias_table


def resize_bias_tables(
    module: nn.Module, state_dict: dict[str, Any], prefix: str
) -> None:
    """Resizes the bias tables of a checkpoint to a model's windows, in place.

    Bicubic, as LocalMIM's released loader for segmentation; mmpretrain's own resizing
    needs a function that SciPy dropped in its version 1.14.

    Args:
        module: The model; its ``WindowMSA`` layers decide the sizes.
        state_dict: The checkpoint's tensors.
        prefix: Where the module's keys start in ``state_dict``.
    """
    changes = set()
    for name, layer in module.named_modules():
        if not isinstance(layer, WindowMSA):
            continue
        key = f"{prefix}{name}.relative_position_"
        table, own = state_dict.get(key + "bias_table"), layer.window_size[0] * 2 - 1
        if table is None or len(table) == own**2:
            continue
        side = round(len(table) ** 0.5)
        if side**2 != len(table):
            continue  # torch's own error names key and shapes
        state_dict[key + "bias_table"] = resize_bias_table(table, own)
        state_dict[key + "index"] = layer.relative_position_index
        changes.add(f"{side}x{side} to {own}x{own}")
    if changes:
        MMLogger.get_current_instance().info(
            f"relative position tables resized from {', '.join(sorted(changes))}"
        )
