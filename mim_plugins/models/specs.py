"""Shapes of images and targets that the parts of a model are built from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor


@dataclass(frozen=True)
class ImageSpec:
    """The images an encoder is built for.

    Args:
        grid: Rows and columns of the patch grid.
        patch_size: Height and width in pixels of a patch, the unit of the mask.
        channels: Number of image channels.
        mean: Mean that normalisation subtracted, (C, 1, 1) or (1, 1, 1), in pixel
            values from 0 to 255; None if images are not normalised.
        std: Standard deviation it divided by, likewise.
        bgr_to_rgb: Whether the channels were reversed before, which makes RGB of image
            files, decoded as BGR; else they are as the data set delivers them.
    """

    grid: tuple[int, int]
    patch_size: tuple[int, int]
    channels: int = 3
    mean: Tensor | None = None
    std: Tensor | None = None
    bgr_to_rgb: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.grid[0] * self.patch_size[0], self.grid[1] * self.patch_size[1]


class LevelSpec(NamedTuple):
    """Shape of the target of one level.

    Args:
        dims: Values per cell.
        scale: Cells per patch and axis: 1 is one cell per patch, 4 is 4x4 cells in
            each patch, 0.5 is one cell on 2x2 patches.
    """

    dims: int
    scale: float = 1.0

    @property
    def width(self) -> int:
        """Values per patch, of all its cells; of a cell where cells pool patches."""
        return int(self.dims * max(self.scale, 1) ** 2)
