"""Pixels of the removed patches as targets, raw or normalised per cell."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmpretrain.registry import MODELS
from torch import Tensor

from ..masking import PatchMask
from ..patches import patchify, unpatchify
from .base import ImageSpec, LevelSpec, LevelTarget, Target
from .cells import cell_scale, check_cell_size, masked_cells, scale_in


@MODELS.register_module()
class PixelTarget(Target):
    """The pixels of each removed patch (MAE, section 3; DeepMIM, section 3.1).

    With other cells than the patches this is the target of LocalMIM's pixel models:
    the cells of each patch, or, where cells are larger than a patch, all cells, each
    counting by the share of its patches that was removed.

    Args:
        norm_pix: Subtract each cell's mean and divide by its standard deviation
            (MAE, "simple implementation"), ``(t - mean) / sqrt(var + eps)`` with
            the unbiased variance.
        eps: Added to the variance, so that a constant cell gives 0.
        cell_size: Side of a cell in pixels; one number, for all levels, or a list with
            one per level, shallow to deep. Each divides the patch, or is a multiple
            of it that divides the image. None: the patch.

    Note:
        LocalMIM's released code has pixel targets for Swin only.
    """

    def __init__(
        self,
        norm_pix: bool = True,
        eps: float = 1e-6,
        cell_size: int | Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.norm_pix = norm_pix
        self.eps = eps
        self.cell_sizes = None if cell_size is None else check_cell_size(cell_size)
        self.images: ImageSpec | None = None

    def prepare(self, images: ImageSpec) -> list[LevelSpec]:
        """Every pixel of a cell."""
        self.images = images
        if self.cell_sizes is None:
            p, q = images.patch_size
            return [LevelSpec(p * q * images.channels)]
        return [
            LevelSpec(cell**2 * images.channels, cell_scale(cell, images))
            for cell in self.cell_sizes
        ]

    @torch.no_grad()
    def forward(self, inputs: Tensor, mask: PatchMask) -> list[LevelTarget]:
        """Cuts the removed patches, or all cells that pool patches, out of images."""
        if self.cell_sizes is None:
            patches = mask.masked(patchify(inputs, mask.grid)).float()
            return [LevelTarget(self.normalise(patches))]
        return [self._cut(inputs, mask, cell) for cell in self.cell_sizes]

    def _cut(self, inputs: Tensor, mask: PatchMask, cell: int) -> LevelTarget:
        scale = scale_in(inputs, mask, cell)
        grid = inputs.shape[-2] // cell, inputs.shape[-1] // cell
        cells = patchify(inputs, grid)  # (N, h*w, cell*cell*C)
        values, weights = masked_cells(cells.unflatten(1, grid), mask, scale)
        each = values.float().unflatten(-1, (-1, cells.shape[-1]))
        return LevelTarget(self.normalise(each).flatten(-2), weights)

    def normalise(self, cells: Tensor) -> Tensor:
        """Normalises each cell (..., D) if ``norm_pix`` says so."""
        if not self.norm_pix:
            return cells
        mean, std = self.statistics(cells)
        return (cells - mean) / std

    def statistics(self, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each cell, (..., 1)."""
        var, mean = torch.var_mean(cells, dim=-1, keepdim=True)
        return mean, (var + self.eps).sqrt()

    def denormalise(
        self, predictions: Sequence[Tensor], patches: Tensor
    ) -> list[Tensor | None]:
        """Undoes ``norm_pix`` with the statistics of the true cells.

        Cells that pool patches are shown for images of the size the encoder was built
        for; for others there is None.
        """
        if self.cell_sizes is None:
            return [self._restore(prediction, patches) for prediction in predictions]
        sizes = self.cell_sizes
        if len(sizes) == 1:
            sizes = sizes * len(predictions)
        return [
            self._patches_of(prediction, patches, cell)
            for prediction, cell in zip(predictions, sizes, strict=True)
        ]

    def _restore(self, values: Tensor, cells: Tensor) -> Tensor:
        if not self.norm_pix:
            return values
        mean, std = self.statistics(cells)
        return values * std + mean

    def _patches_of(
        self, prediction: Tensor, patches: Tensor, cell: int
    ) -> Tensor | None:
        """Predicted cells of one size as patches, (N, L, p*p*C)."""
        assert self.images is not None, "prepare() comes first"
        side, _ = self.images.patch_size
        if cell <= side:
            # Each patch is an image of its own.
            grid = (1, 1)
            true = unpatchify(patches.flatten(0, 1)[:, None], grid, (side, side))
            prediction = prediction.flatten(0, 1).unflatten(
                1, ((side // cell) ** 2, -1)
            )
        else:
            grid = self.images.grid
            if grid[0] * grid[1] != patches.shape[1]:
                return None
            true = unpatchify(patches, grid, (side, side))
        cell_grid = true.shape[-2] // cell, true.shape[-1] // cell
        values = self._restore(prediction, patchify(true, cell_grid))
        pixels = unpatchify(values, cell_grid, (cell, cell))
        return patchify(pixels, grid).view_as(patches)
