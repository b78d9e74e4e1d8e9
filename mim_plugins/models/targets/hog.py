"""Histograms of oriented gradients as targets, at one cell size or several."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
from mmpretrain.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F

from ..masking import PatchMask
from .base import ImageSpec, LevelSpec, LevelTarget, Target
from .cells import cell_scale, check_cell_size, masked_cells, scale_in

# Pixels of all channels that are worked on at a time: on a CPU what stays in its
# caches, elsewhere what bounds the memory.
CPU_CHUNK = 2**18
DEVICE_CHUNK = 2**23


@MODELS.register_module()
class HOGTarget(Target):
    """Orientation histograms of each cell, as LocalMIM's official code computes them.

    Each colour channel by itself: a 3x3 Sobel pair, unsigned orientation, the
    magnitude to one bin, L2 norm per cell; no Gaussian window, no norm over blocks of
    cells. Values are ordered by colour channel, then bin.

    All levels share one gradient pass, and, without a bias, the bins of the finest
    cells, of which coarser ones are sums. Computed in float32 also under autocast.

    References:
        - Masked Image Modeling with Local Multi-Scale Reconstruction, 2023,
          https://arxiv.org/abs/2303.05251
        - Masked Feature Prediction for Self-Supervised Visual Pre-Training, 2021,
          https://arxiv.org/abs/2112.09133

    Args:
        nbins: Orientation bins over half a turn.
        cell_size: Side of a cell in pixels; one number, for all levels, or a list with
            one per level, shallow to deep. Each divides the patch, or is a multiple
            of it that divides the image.
        bias: Tilt every gradient by a constant pair, drawn once per level from
            U(-1/3, 1/3), frozen, and kept in the checkpoint, as the official
            ``hog_bias`` models do: flat areas then have one fixed bin.

    Raises:
        ValueError: If ``nbins`` or a cell size is not a positive number.
    """

    def __init__(
        self, nbins: int = 9, cell_size: int | Sequence[int] = 8, bias: bool = False
    ) -> None:
        super().__init__()
        if isinstance(nbins, bool) or not isinstance(nbins, int) or nbins < 1:
            raise ValueError(f"nbins is an integer from 1 on, got {nbins!r}")
        self.nbins = nbins
        self.bias = bias
        self.cell_sizes = check_cell_size(cell_size)
        # Frozen parameters and no buffers: DistributedDataParallel hands the first
        # rank's to all others also where buffers are not broadcast (mmengine's
        # default), so that every rank has the same bias. One per level, as in the
        # official checkpoints; without a bias they are equal.
        self.gradients: Any = nn.ModuleList(_gradient(bias) for _ in self.cell_sizes)

    def prepare(self, images: ImageSpec) -> list[LevelSpec]:
        """``nbins`` values per colour channel for each cell."""
        dims = self.nbins * images.channels
        return [LevelSpec(dims, cell_scale(cell, images)) for cell in self.cell_sizes]

    @torch.no_grad()
    def forward(self, inputs: Tensor, mask: PatchMask) -> list[LevelTarget]:
        """Histograms of the removed patches, or of all cells that pool patches."""
        with torch.autocast(inputs.device.type, enabled=False):
            targets = []
            for cell, sums in zip(
                self.cell_sizes, self.sums(inputs.float()), strict=True
            ):
                scale = scale_in(inputs, mask, cell)
                values, weights = masked_cells(sums, mask, scale)
                targets.append(LevelTarget(self.normalise(values, cell), weights))
        return targets

    @torch.no_grad()
    def histograms(self, images: Tensor) -> list[Tensor]:
        """The normalised histograms of every cell, one (N, h, w, C * nbins) a level.

        Args:
            images: (N, C, H, W), float32; pixels beyond the last complete cell are left
                out.
        """
        return [
            self.normalise(sums, cell)
            for cell, sums in zip(self.cell_sizes, self.sums(images), strict=True)
        ]

    def normalise(self, sums: Tensor, cell_size: int) -> Tensor:
        """Divides the sums of a cell by their L2 norm, per colour channel.

        The official code takes the mean of a cell, where we have the sum, so the
        smallest norm to divide by grows with the area of the cell.
        """
        bins = sums.unflatten(-1, (-1, self.nbins))
        return F.normalize(bins, dim=-1, eps=1e-12 * cell_size**2).flatten(-2)

    def sums(self, images: Tensor) -> list[Tensor]:
        """Magnitude per orientation bin, summed over cells, (N, h, w, C * nbins)."""
        n, channels, height, width = images.shape
        # One set of bins for all levels, or one per level where they have a bias.
        cells = self.cell_sizes if self.bias else [reduce(math.gcd, self.cell_sizes)]
        grids = [(height // cell, width // cell) for cell in cells]
        dims = channels * self.nbins
        found = [images.new_zeros(n, h * w * dims) for h, w in grids]
        step = self._images_at_a_time(images)
        places = [self._first_bins(images[:step], cell) for cell in cells]
        for start in range(0, n, step):
            responses = self.responses(images[start : start + step])
            for result, place, cell, (gx, gy) in zip(
                found, places, cells, responses, strict=True
            ):
                self._accumulate(result[start : start + step], gx, gy, cell, place)
        found = [x.view(n, h, w, dims) for x, (h, w) in zip(found, grids, strict=True)]
        return found if self.bias else self._coarser(found[0], cells[0])

    def responses(self, images: Tensor) -> list[tuple[Tensor, Tensor]]:
        """The gradients (gx, gy), (n, C, H, W): one pair; with a bias, one a level."""
        modules = self.gradients if self.bias else self.gradients[:1]
        weight = torch.cat([module.weight for module in modules])
        bias = torch.cat([module.bias for module in modules]) if self.bias else None
        padded = F.pad(images, (1, 1, 1, 1), mode="reflect").flatten(0, 1)
        convolve = _convolve if images.device.type == "cpu" else _convolve_depthwise
        maps = convolve(padded, weight, bias)  # (n * C, 2 * levels, H, W)
        gradients = maps.unflatten(0, images.shape[:2]).unbind(2)
        return list(zip(gradients[::2], gradients[1::2], strict=True))

    def _accumulate(
        self, result: Tensor, gx: Tensor, gy: Tensor, cell: int, place: Tensor
    ) -> None:
        """Adds each pixel's magnitude to the bin of its orientation.

        Args:
            result: Filled in place, (n, h * w * C * nbins).
            gx: Response to the horizontal kernel, (n, C, H, W).
            gy: Response to the vertical kernel.
            cell: Side of a cell in pixels.
            place: As of :meth:`_first_bins`.
        """
        height, width = place.shape[-2:]
        gx, gy = gx[..., :height, :width], gy[..., :height, :width]
        magnitude = (gx * gx).addcmul_(gy, gy).sqrt_()
        # Orientation is gx over gy, in this order; pi and 0 are the same.
        phase = torch.atan2(gx, gy).div_(math.pi).mul_(self.nbins)
        bins = phase.floor_().remainder_(self.nbins).long().add_(place[: len(gx)])
        result.view(-1).index_add_(0, bins.flatten(), magnitude.flatten())

    def _first_bins(self, images: Tensor, cell: int) -> Tensor:
        """Where the histogram of each pixel starts in the flat result, (n, C, H, W).

        Height and width are cut to complete cells.
        """
        n, channels, height, width = images.shape
        rows, cols = height // cell, width // cell

        def count(size: int, repeat: int = 1) -> Tensor:
            return torch.arange(size, device=images.device).repeat_interleave(repeat)

        image = count(n)[:, None, None, None] * (rows * cols)
        place = image + count(rows, cell)[:, None] * cols + count(cols, cell)
        return (place * channels + count(channels)[:, None, None]) * self.nbins

    @staticmethod
    def _images_at_a_time(images: Tensor) -> int:
        limit = CPU_CHUNK if images.device.type == "cpu" else DEVICE_CHUNK
        return max(1, limit // images[0].numel())

    def _coarser(self, sums: Tensor, cell: int) -> list[Tensor]:
        """Builds every level from the finest cells, the coarse from the less coarse."""
        n, *_, dims = sums.shape
        built = {cell: sums}
        for size in sorted(set(self.cell_sizes)):
            source = max(other for other in built if size % other == 0)
            factor = size // source
            if factor > 1:
                finer = built[source]
                rows, cols = finer.shape[1] // factor, finer.shape[2] // factor
                finer = finer[:, : rows * factor, : cols * factor]
                blocks = finer.reshape(n, rows, factor, cols, factor, dims)
                built[size] = blocks.sum(dim=(2, 4))
        return [built[size] for size in self.cell_sizes]

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *args: Any
    ) -> None:
        """Refuses a checkpoint whose bias is not the one this target needs.

        Raises:
            ValueError: If a bias is missing, or there is one and ``bias`` is False.
        """
        mine = [key for key in state_dict if key.startswith(f"{prefix}gradients.")]
        given = {key for key in mine if key.endswith(".bias")}
        missing = {
            f"{prefix}gradients.{level}.bias" for level in range(len(self.gradients))
        } - given
        if self.bias and mine and missing:
            raise ValueError(
                "the checkpoint holds HOG kernels without their bias "
                f"({', '.join(sorted(missing))}), and a random one would be another "
                "target: set target_generator.bias=False, or take a checkpoint of a "
                "model with as many levels and a bias"
            )
        if given and not self.bias:
            raise ValueError(
                f"the checkpoint was trained on HOG targets with a bias "
                f"({', '.join(sorted(given))}): set target_generator.bias=True"
            )
        super()._load_from_state_dict(state_dict, prefix, *args)


def _gradient(bias: bool) -> nn.Conv2d:
    """The frozen Sobel pair; torch's default draws the bias from U(-1/3, 1/3)."""
    conv = nn.Conv2d(1, 2, 3, bias=bias)
    kernel = torch.tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]])
    conv.weight.data.copy_(torch.stack([kernel, kernel.t()])[:, None])
    return conv.requires_grad_(False)


def _convolve(images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """3x3 responses of one-channel images, (n, H + 2, W + 2) -> (n, K, H, W).

    On the CPU this form rounds exactly as the official code, channel by channel.
    Where a gradient should be 0, its rounding decides the bin.
    """
    return F.conv2d(images[:, None], weight, bias)


def _convolve_depthwise(images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """As :func:`_convolve`, as a depthwise convolution of one wide image.

    On a GPU torch has a kernel of its own for it, in full float32; others may round
    their operands to TF32, which cuDNN is allowed by default.
    """
    n = len(images)
    repeated = None if bias is None else bias.repeat(n)
    maps = F.conv2d(images[None], weight.repeat(n, 1, 1, 1), repeated, groups=n)
    return maps.unflatten(1, (n, -1))[0]
