"""Resizing of relative position biases of windows and grids on load."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from mmengine.logging import MMLogger
from mmpretrain.models.utils import WindowMSA
from torch import Tensor, nn
from torch.nn import functional as F


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


def resize_bias_table(table: Tensor, side: int) -> Tensor:
    """Resizes a table of offsets, (s * s, heads) -> (side * side, heads)."""
    old = round(len(table) ** 0.5)
    maps = table.float().T.unflatten(1, (old, old))[None]  # (1, heads, s, s)
    maps = F.interpolate(maps, (side, side), mode="bicubic", align_corners=False)
    return maps[0].flatten(1).T.contiguous().to(table.dtype)


def resize_offset_table(table: Tensor, grid: tuple[int, int]) -> Tensor:
    """Resizes a table of offsets and class-token biases, (M, heads) -> (M', heads).

    As BEiT's released code for complete images: the old offsets are taken to lie on a
    geometric progression that reaches to the ends of the new grid, so that near ones
    keep their distance, and a cubic spline through them is read at the new offsets.

    Args:
        table: (2 g - 1)**2 offsets of a square grid of g x g patches, and three rows
            of the class token, which stay as they are.
        grid: Rows and columns of the new grid.

    Raises:
        ValueError: If the table is not of a square grid.
    """
    side = math.isqrt(len(table) - 3)
    if side**2 != len(table) - 3 or side % 2 == 0:
        raise ValueError(
            f"a relative position table of {len(table)} rows is of no square grid of "
            "patches, which has (2 g - 1)**2 + 3: load it at the image size it was "
            "trained at"
        )
    offsets, cls = table[:-3].double(), table[-3:]
    rows, cols = (_offset_weights(side, 2 * size - 1).to(offsets) for size in grid)
    resized = torch.einsum("ar,bc,rch->abh", rows, cols, offsets.view(side, side, -1))
    return torch.cat([resized.flatten(0, 1).to(table.dtype), cls])


def _offset_weights(old: int, new: int) -> Tensor:
    """Weights of the old offsets of an axis at the new ones, (new, old)."""
    if old == new:
        return torch.eye(old, dtype=torch.float64)
    reach, ratio = new // 2, 1.01
    low, high = 1.01, 1.5
    while high - low > 1e-6:
        ratio = (low + high) / 2
        too_far = (1 - ratio ** (old // 2)) / (1 - ratio) > reach
        low, high = (low, ratio) if too_far else (ratio, high)
    steps = np.cumsum(ratio ** np.arange(old // 2))
    known = np.concatenate([-steps[::-1], [0], steps])
    asked = np.clip(np.arange(-reach, reach + 1), known[0], known[-1])
    return torch.from_numpy(_spline_weights(known, asked))


def _spline_weights(known: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """A cubic spline (not-a-knot) through n points, read at m, as a matrix (m, n)."""
    n = len(known)
    if n < 4:
        # Too few for a spline: the parabola, or the constant, through them.
        return np.vander(asked, n) @ np.linalg.inv(np.vander(known, n))
    h = np.diff(known)
    slopes = (np.eye(n, k=1) - np.eye(n))[:-1] / h[:, None]
    # Second derivatives are continuous inside; third ones at the second and the last
    # but one point.
    left, right = np.zeros((n, n)), np.zeros((n, n))
    for i in range(1, n - 1):
        left[i, i - 1 : i + 2] = h[i - 1], 2 * (h[i - 1] + h[i]), h[i]
        right[i] = 6 * (slopes[i] - slopes[i - 1])
    left[0, :3] = h[1], -h[0] - h[1], h[0]
    left[-1, -3:] = h[-1], -h[-1] - h[-2], h[-2]
    curvature = np.linalg.solve(left, right)
    low = np.clip(np.searchsorted(known, asked, side="right") - 1, 0, n - 2)
    a, b = (known[low + 1] - asked)[:, None], (asked - known[low])[:, None]
    width = h[low][:, None]
    return (
        (a * np.eye(n)[low] + b * np.eye(n)[low + 1]) / width
        + (a**3 / width - a * width) * curvature[low] / 6
        + (b**3 / width - b * width) * curvature[low + 1] / 6
    )
