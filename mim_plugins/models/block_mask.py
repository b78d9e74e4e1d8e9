"""Block-wise masks: rectangles of patches."""

from __future__ import annotations

import math

import numpy as np
import torch
from mmpretrain.registry import MODELS
from torch import Tensor

from .mask_samplers import RandomPatchMask
from .masking import PatchMask

# Rectangles that are drawn before the rest is removed patch by patch; a dozen are used.
_MAX_RECTANGLES = 1000


@MODELS.register_module()
class BlockPatchMask(RandomPatchMask):
    """Removes rectangles of patches (BEiT, section 2.3 and algorithm 1).

    Rectangles of random area, aspect ratio and place are removed until there are as
    many patches as the ratio says. In BEiT's code images differ in that number; here
    the last rectangle is cut short, row by row, so that a batch stays dense. As of all
    samplers of this package, an image's mask depends on its seed alone.

    References:
        - BEiT: BERT Pre-Training of Image Transformers, 2021,
          https://arxiv.org/abs/2106.08254

    Args:
        mask_ratio: Share of patches to remove, in (0, 1). BEiT has 0.4; MAE (its table
            1f) found random masks better, and blocks of 0.5 better than of 0.75.
        min_patches: Smallest area of a rectangle, in patches.
        min_aspect: Smallest ratio of height to width; the largest is its inverse.

    Raises:
        ValueError: If ``mask_ratio`` is outside (0, 1), ``min_patches`` below 1, or
            ``min_aspect`` outside (0, 1].
    """

    def __init__(
        self, mask_ratio: float = 0.4, min_patches: int = 16, min_aspect: float = 0.3
    ) -> None:
        super().__init__(mask_ratio)
        if min_patches < 1:
            raise ValueError(f"min_patches is at least 1, got {min_patches}")
        if not 0 < min_aspect <= 1:
            raise ValueError(
                "min_aspect is the smallest ratio of height to width, above 0 and at "
                f"most 1; got {min_aspect}"
            )
        self.min_patches, self.min_aspect = min_patches, min_aspect

    def forward(
        self,
        batch_size: int,
        grid: tuple[int, int],
        device: torch.device | str = "cpu",
        seeds: Tensor | None = None,
    ) -> PatchMask:
        """Draws a mask for each image, on the host.

        Args:
            batch_size: Number of images N.
            grid: Rows and columns of the patch grid.
            device: Where the mask is needed.
            seeds: One int64 per image, (N,), or None.
        """
        length = grid[0] * grid[1]
        count = length - self.count_visible(length)
        if seeds is None:
            seeds = torch.randint(2**62, (batch_size,))
        masks = [
            self._draw(np.random.default_rng(seed % 2**64), grid, count)
            for seed in seeds.tolist()
        ]
        return PatchMask.from_mask(torch.from_numpy(np.stack(masks)), grid, device)

    def _draw(
        self, draw: np.random.Generator, grid: tuple[int, int], count: int
    ) -> np.ndarray:
        """One mask, (rows, cols), True where one of ``count`` patches is removed."""
        removed, missing = np.zeros(grid, dtype=bool), count
        spread = abs(math.log(self.min_aspect))
        for _ in range(_MAX_RECTANGLES):
            area = draw.uniform(self.min_patches, max(self.min_patches, missing))
            aspect = math.exp(draw.uniform(-spread, spread))
            height, width = (
                min(max(round(math.sqrt(area * ratio)), 1), side)
                for ratio, side in zip((aspect, 1 / aspect), grid, strict=True)
            )
            top = draw.integers(grid[0] - height, endpoint=True)
            left = draw.integers(grid[1] - width, endpoint=True)
            block = removed[top : top + height, left : left + width]
            rows, cols = np.nonzero(~block)
            block[rows[:missing], cols[:missing]] = True
            missing -= min(len(rows), missing)
            if not missing:
                return removed
        removed.flat[np.flatnonzero(~removed)[:missing]] = True
        return removed

    def extra_repr(self) -> str:
        """Shows the settings in the module's print-out."""
        return (
            f"{super().extra_repr()}, min_patches={self.min_patches}, "
            f"min_aspect={self.min_aspect}"
        )
