"""Square cells that divide the patches of a mask, or pool several of them."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from mmpretrain.registry import MODELS
from torch import Tensor, nn

from ..masking import PatchMask
from .base import ImageSpec, LevelTarget


def check_cell_size(cell_size: int | Sequence[int]) -> list[int]:
    """Validates cell sizes and returns them as a list with one entry per level.

    Raises:
        ValueError: If a size is not a positive integer number of pixels.
    """
    sizes = list(cell_size) if isinstance(cell_size, Sequence) else [cell_size]
    if not sizes:
        raise ValueError("cell_size is an empty list: give one cell size per level")
    for size in sizes:
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ValueError(
                f"a cell size is an integer number of pixels from 1 on, got {size!r}"
            )
    return sizes


def cell_scale(cell_size: int, images: ImageSpec) -> float:
    """Cells per patch and axis; checks that they fit the images of an encoder.

    Args:
        cell_size: Side of a cell in pixels.
        images: What the encoder is built for.

    Raises:
        ValueError: If cells neither divide a patch nor pool complete patches of the
            grid, naming the sizes that do.
    """
    rows, cols = images.grid
    side, width = images.patch_size
    if side != width:
        raise ValueError(
            f"square cells need square patches, got patches of {images.patch_size}"
        )
    if side % cell_size and cell_size % side:
        raise ValueError(
            f"cells of {cell_size} pixels neither divide patches of {side} pixels nor "
            f"pool complete ones; cell sizes that fit: {_fitting(images)}"
        )
    pooled = max(cell_size // side, 1)
    if rows % pooled or cols % pooled:
        raise ValueError(
            f"cells of {cell_size} pixels pool {pooled}x{pooled} patches, which do not "
            f"divide the {rows}x{cols} grid of patches: choose an image size that is "
            f"a multiple of {cell_size} pixels, or one of the cell sizes that fit: "
            f"{_fitting(images)}"
        )
    return side / cell_size


def cell_size_of(scale: float, patch_size: tuple[int, int]) -> int:
    """The cell size that gives a number of cells per patch and axis.

    As for LocalMIM's cells of 4, 8, 16 and 32 pixels on patches of 16.

    Raises:
        ValueError: If patches are not square, or the cell not a whole number of pixels.
    """
    side, width = patch_size
    # Exact: 16 / 0.1 is not 160 in binary fractions.
    cell = Fraction(side) / Fraction(str(scale)) if scale > 0 else Fraction(0)
    if side != width or cell < 1 or cell.denominator != 1:
        raise ValueError(
            f"{scale} cells per axis of a {side}x{width} patch are not squares of "
            "whole pixels: choose another scale or patch size"
        )
    return int(cell)


def scale_in(images: Tensor, mask: PatchMask, cell_size: int) -> float:
    """Cells per patch and axis in a batch of images (N, C, H, W).

    Raises:
        ValueError: As :func:`cell_scale`; images may be of another size than those
            the encoder was built for.
    """
    (height, width), (rows, cols) = images.shape[-2:], mask.grid
    spec = ImageSpec(mask.grid, (height // rows, width // cols))
    return cell_scale(cell_size, spec)


def masked_cells(cells: Tensor, mask: PatchMask, scale: float) -> LevelTarget:
    """Arranges the cells of complete images as the target of the removed patches.

    Args:
        cells: Values of every cell, (N, rows * scale, cols * scale, dims).
        mask: The mask the encoder sees, of a grid of (rows, cols).
        scale: Cells per patch and axis.
    """
    if scale < 1:
        return LevelTarget(cells.flatten(1, 2), mask.at_scale(scale))
    return LevelTarget(mask.masked(cells_by_patch(cells, int(scale))))


def cells_by_patch(cells: Tensor, scale: int) -> Tensor:
    """Groups cells: (N, rows * s, cols * s, D) -> (N, rows * cols, s * s * D).

    The cells of a patch follow each other row by row.
    """
    n, height, width, dims = cells.shape
    rows, cols = height // scale, width // scale
    blocks = cells.reshape(n, rows, scale, cols, scale, dims).transpose(2, 3)
    return blocks.reshape(n, rows * cols, -1)


def cells_on_grid(values: Tensor, grid: tuple[int, int], scale: float) -> Tensor:
    """Every cell of a target at its place, (N, rows * scale, cols * scale, D).

    Args:
        values: Of all patches in raster order, the cells of a patch row by row,
            (N, L, width); where a cell pools patches, of all cells, see
            :class:`LevelTarget`.
        grid: Rows and columns of the patch grid.
        scale: Cells per patch and axis.
    """
    rows, cols = grid
    if scale < 1:
        return values.unflatten(1, (round(rows * scale), round(cols * scale)))
    side = int(scale)
    blocks = values.reshape(len(values), rows, cols, side, side, -1).transpose(2, 3)
    return blocks.reshape(len(values), rows * side, cols * side, -1)


def _fitting(images: ImageSpec) -> list[int]:
    """The cell sizes that divide a patch or pool complete patches of the grid."""
    side = images.patch_size[0]
    rows, cols = images.grid
    finer = [cell for cell in range(1, side) if side % cell == 0]
    pools = range(1, min(rows, cols) + 1)
    return finer + [side * k for k in pools if rows % k == 0 and cols % k == 0]


def with_cells(
    targets: dict | nn.Module | list,
    scales: Sequence[float],
    patch_size: tuple[int, int],
) -> dict | nn.Module | list:
    """Gives configs of targets the cell sizes that follow from the scales.

    Args:
        targets: A config for all levels, or a list with one per level. Built targets,
            and targets that have no cells or say their size, stay as they are.
        scales: Cells per patch and axis at each level.
        patch_size: Height and width of the mask's patches in pixels.

    Raises:
        ValueError: If a list of targets has another length than ``scales``, or a cell
            would not be a square of whole pixels.
    """
    if not isinstance(targets, list):
        return _with_cell(targets, list(scales), patch_size)
    if len(targets) != len(scales):
        raise ValueError(
            f"target_generator lists {len(targets)} targets for {len(scales)} scales "
            f"({list(scales)}): give one of each per level, shallow to deep"
        )
    return [
        _with_cell(target, scale, patch_size)
        for target, scale in zip(targets, scales, strict=True)
    ]


def _with_cell(
    target: Any, scale: float | list[float], patch_size: tuple[int, int]
) -> Any:
    if not isinstance(target, dict) or "cell_size" in target:
        return target
    kind = target["type"]
    kind = MODELS.get(kind) if isinstance(kind, str) else kind
    if kind is None or "cell_size" not in inspect.signature(kind).parameters:
        return target
    if isinstance(scale, list):
        sizes: int | list[int] = [cell_size_of(each, patch_size) for each in scale]
    else:
        sizes = cell_size_of(scale, patch_size)
    return {**target, "cell_size": sizes}
