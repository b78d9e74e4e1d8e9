"""Resizes position embeddings and tables of relative positions to other images."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

Grid = tuple[int, int]


def resize_position_embedding(
    table: Tensor,
    grid: Grid,
    num_extra_tokens: int = 1,
    old_grid: Grid | None = None,
    antialias: bool = False,
) -> Tensor:
    """Resizes an absolute position embedding by bicubic interpolation.

    Args:
        table: (1, extra + rows * cols, C).
        grid: New rows and columns.
        num_extra_tokens: Leading rows that stay as they are, such as the class token's.
        old_grid: Old rows and columns; by default square, or of the same proportions
            as the new grid.
        antialias: Whether a smaller grid is made from averages (as DINOv2 does) rather
            than from the nearest sixteen positions (as MAE does).

    Returns:
        (1, extra + new rows * new cols, C).

    Raises:
        ValueError: If the old grid cannot be inferred, or is not the table's.
    """
    positions = table.shape[1] - num_extra_tokens
    old = old_grid or _grid_of(positions, grid)
    if math.prod(old) != positions:
        raise ValueError(
            f"the position embedding has {positions} positions, which is not the "
            f"{old[0]}x{old[1]} grid it is said to have"
        )
    extra, spatial = table[:, :num_extra_tokens], table[:, num_extra_tokens:]
    maps = spatial.float().transpose(1, 2).unflatten(2, old)  # (1, C, rows, cols)
    resized = F.interpolate(
        maps, grid, mode="bicubic", align_corners=False, antialias=antialias
    )
    spatial = resized.flatten(2).transpose(1, 2).to(table.dtype)
    return torch.cat([extra, spatial], dim=1)


def resize_bias_table(table: Tensor, side: int, antialias: bool = False) -> Tensor:
    """Resizes a table of offsets, (s * s, heads) -> (side * side, heads).

    Args:
        table: Relative positions of a Swin Transformer's windows.
        side: 2 w - 1 for windows of w x w tokens.
        antialias: As of :func:`resize_position_embedding`.
    """
    return _resize_map(table, (side, side), antialias)


def resize_offset_table(table: Tensor, grid: Grid, antialias: bool = False) -> Tensor:
    """Resizes a table of offsets and class-token biases, (M, heads) -> (M', heads).

    As BEiT's released code for whole images: the old offsets are taken to lie on a
    geometric progression that reaches to the ends of the new grid, so that near ones
    keep their distance, and a cubic spline through them is read at the new offsets.

    Args:
        table: (2 g - 1)**2 offsets of a square grid of g x g patches, and three rows
            of the class token, which stay as they are.
        grid: Rows and columns of the new grid.
        antialias: Whether, instead, it is resized as an image and averaged.

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
    offsets, cls = table[:-3], table[-3:]
    new = (2 * grid[0] - 1, 2 * grid[1] - 1)
    if antialias:
        return torch.cat([_resize_map(offsets, new, antialias), cls])
    rows, cols = (_offset_weights(side, size).to(table.device) for size in new)
    maps = offsets.double().view(side, side, -1)
    resized = torch.einsum("ar,bc,rch->abh", rows, cols, maps)
    return torch.cat([resized.flatten(0, 1).to(table.dtype), cls])


def resize_state(
    state: dict[str, Tensor],
    img_size: Grid | None = None,
    window: int | None = None,
    old_size: Grid | None = None,
    antialias: bool = False,
) -> dict[str, str]:
    """Resizes what depends on the image size in our state dict, in place.

    Args:
        state: With the encoder under ``backbone.``.
        img_size: New height and width in pixels, for position embeddings and the
            tables of BEiT-style encoders.
        window: New side of a Swin Transformer's windows in tokens.
        old_size: Old height and width in pixels, where they are not square.
        antialias: As of :func:`resize_position_embedding`.

    Returns:
        What was done, by key.

    Raises:
        ValueError: If nothing in the checkpoint depends on what is asked for, or the
            size is not a multiple of the patches.
    """
    done: dict[str, str] = {}
    tables = [k for k in state if k.endswith("relative_position_bias_table")]
    if img_size is not None:
        grid = grid_in(img_size, state)
        old = None if old_size is None else grid_in(old_size, state)
        key, has_cls = "backbone.pos_embed", "backbone.cls_token" in state
        if key not in state and not (tables and has_cls):
            raise ValueError(
                "--img-size resizes position embeddings, and this checkpoint has none; "
                "for a Swin Transformer give --window-size"
            )
        if key in state:
            extra = has_cls + ("backbone.dist_token" in state)
            before = state[key].shape[1] - extra
            state[key] = resize_position_embedding(
                state[key], grid, extra, old, antialias
            )
            if before != math.prod(grid) or old not in (None, grid):
                done[key] = f"{before} positions to {grid[0]}x{grid[1]}"
        for key in tables:
            if len(state[key]) != math.prod(2 * side - 1 for side in grid) + 3:
                table = resize_offset_table(state[key], grid, antialias)
                done[key] = _replace(state, key, table)
    if window is not None:
        tables = [k for k in tables if "w_msa." in k]
        if not tables:
            raise ValueError(
                "--window-size resizes the tables of a Swin Transformer, which this "
                "checkpoint is not; give --img-size"
            )
        for key in tables:
            if len(state[key]) != (2 * window - 1) ** 2:
                table = resize_bias_table(state[key], 2 * window - 1, antialias)
                done[key] = _replace(state, key, table)
    return done


def _replace(state: dict[str, Tensor], key: str, table: Tensor) -> str:
    """Puts a table in, without the index of the old one, and says what was done."""
    done = f"{len(state[key])} offsets to {len(table)}"
    state[key] = table
    state.pop(key.replace("bias_table", "index"), None)
    return done


def _resize_map(table: Tensor, new: Grid, antialias: bool) -> Tensor:
    """Resizes a square table, (s * s, heads), as an image."""
    side = math.isqrt(len(table))
    maps = table.float().T.unflatten(1, (side, side))[None]  # (1, heads, s, s)
    maps = F.interpolate(
        maps, new, mode="bicubic", align_corners=False, antialias=antialias
    )
    return maps[0].flatten(1).T.contiguous().to(table.dtype)


def _grid_of(positions: int, like: Grid) -> Grid:
    """The grid of so many positions: square, or of the proportions of another."""
    side = math.isqrt(positions)
    if side**2 == positions:
        return side, side
    rows = math.isqrt(positions * like[0] // like[1])
    if rows and positions % rows == 0 and rows * like[1] == positions // rows * like[0]:
        return rows, positions // rows
    raise ValueError(
        f"a position embedding of {positions} positions is of no square grid, and of "
        f"none with the proportions of {like[0]}x{like[1]}: convert it with "
        "tools/convert_checkpoint.py, where --old-size H W says what images it is for"
    )


def grid_in(size: Grid, state: Mapping[str, Tensor]) -> Grid:
    """Rows and columns of patches in an image, (height, width) in pixels."""
    weight = state.get("backbone.patch_embed.projection.weight")
    if weight is None:
        raise ValueError("there is no patch embedding, so no image size to change")
    rows, cols = weight.shape[2:]
    if size[0] % rows or size[1] % cols:
        raise ValueError(
            f"an image of {size[0]}x{size[1]} pixels does not divide into patches of "
            f"{rows}x{cols}"
        )
    return size[0] // rows, size[1] // cols


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
