"""Histograms made on another device than the CPU that made the golden cases.

Where a gradient lies exactly between two orientation bins, rounding decides, and
devices round differently. Such cells are counted, and replaced by the CPU's.
"""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor

from mim_plugins.models.masking import PatchMask
from mim_plugins.models.targets import HOGTarget, LevelTarget, Target

# Cells have a norm of 1 per colour channel; any other bin shows far above this.
LIMIT = 1e-5


def settled_targets(
    target: Target, images: Tensor, mask: PatchMask
) -> tuple[list[LevelTarget], list[int]]:
    """The targets of a batch, and how many cells of each level are the CPU's.

    Args:
        target: Any target; only HOG can have ties.
        images: On any device, (N, C, H, W).
        mask: The mask, on the same device.
    """
    targets = target(images, mask)
    if images.device.type == "cpu" or not isinstance(target, HOGTarget):
        return targets, [0] * len(targets)
    host = deepcopy(target).cpu()(images.cpu(), mask.to("cpu"))
    dims = target.nbins * images.shape[1]
    settled = [
        settle(a.values, b.values, dims) for a, b in zip(targets, host, strict=True)
    ]
    return (
        [
            LevelTarget(values, level.weights)
            for (values, _), level in zip(settled, targets, strict=True)
        ],
        [count for _, count in settled],
    )


def settle(values: Tensor, on_cpu: Tensor, dims: int) -> tuple[Tensor, int]:
    """Takes the CPU's cells where they differ, and counts them.

    Args:
        values: Histograms of a device, (..., cells * dims).
        on_cpu: The same made on the CPU.
        dims: Values of a cell.
    """
    cells, reference = (
        x.unflatten(-1, (-1, dims)) for x in (values, on_cpu.to(values.device))
    )
    tied = (cells - reference).abs().amax(dim=-1, keepdim=True) > LIMIT
    return torch.where(tied, reference, cells).flatten(-2), int(tied.sum())
