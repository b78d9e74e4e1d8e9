"""The benchmark of HOG targets: ``tools/benchmark.py hog``."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from mmpretrain.models.selfsup import HOGGenerator
from torch import Tensor
from torch.nn import functional as F

from mim_plugins.models.targets import HOGTarget

from .step import device_name, provenance
from .timing import Stopwatch, Summary, interleave, paired_ratio


def run_hog(
    cell_sizes: Sequence[int] = (4, 8, 16, 32),
    nbins: int = 9,
    batch_size: int = 64,
    img_size: int = 224,
    device: str | None = None,
    rounds: int = 5,
    threads: int | None = None,
) -> dict[str, Any]:
    """Time HOG targets at several cell sizes, ours and mmpretrain's, in turns.

    Ours makes all levels in one pass; mmpretrain's ``HOGGenerator`` has one cell size
    and runs once per level, without its Gaussian window and without its final
    reshape, which knows one image size alone. Both compute every cell.

    Args:
        cell_sizes: Side of a cell in pixels, one per level.
        nbins: Orientation bins.
        batch_size: Images in a batch.
        img_size: Height and width of the images in pixels.
        device: The CPU by default.
        rounds: Rounds to keep; one more is run first and discarded.
        threads: CPU threads; 1 by default when the device is the CPU.

    Returns:
        A report that can be written as JSON.

    Raises:
        ValueError: If the image size is no multiple of every cell size.
    """
    if any(img_size % cell for cell in cell_sizes):
        raise ValueError(
            f"img_size={img_size} is not a multiple of every cell size "
            f"{list(cell_sizes)}"
        )
    where = torch.device(device or "cpu")
    if threads or where.type == "cpu":
        torch.set_num_threads(threads or 1)
    torch.manual_seed(0)
    images = synthetic_images(batch_size, img_size).to(where)
    implementations: dict[str, Callable[[Tensor], list[Tensor]]] = {
        "ours": HOGTarget(nbins, list(cell_sizes)).to(where).histograms,
        "mmpretrain": partial(
            once_per_level,
            [CellHistograms(nbins, cell, 0).to(where) for cell in cell_sizes],
        ),
    }
    ours, theirs = (
        implementation(images) for implementation in implementations.values()
    )
    difference = max(
        (a - b.permute(0, 3, 4, 1, 2).flatten(3)).abs().max().item()
        for a, b in zip(ours, theirs, strict=True)
    )
    runs = {k: partial(time_call, v, images) for k, v in implementations.items()}
    seconds = interleave(runs, rounds)
    return {
        "benchmark": "hog",
        "cell_sizes": list(cell_sizes),
        "nbins": nbins,
        "batch_size": batch_size,
        "image_shape": list(images.shape[1:]),
        "device": device_name(where),
        "threads": torch.get_num_threads(),
        "clock": Stopwatch.clock_name(where),
        "rounds": rounds,
        "max_difference": difference,
        "implementations": {
            name: {
                "images_per_s": batch_size / Summary.of(values).median,
                "batch_s": Summary.of(values).as_dict(),
                "spread": Summary.of(values).spread,
            }
            for name, values in seconds.items()
        },
        "times_as_fast_as": {
            "mmpretrain": paired_ratio(seconds["ours"], seconds["mmpretrain"]).as_dict()
        },
        **provenance(),
    }


class CellHistograms(HOGGenerator):
    """mmpretrain's HOG without the regrouping to a 14x14 grid."""

    def _reshape(self, hog_feat: Tensor) -> Tensor:
        return hog_feat


def once_per_level(generators: Sequence[HOGGenerator], images: Tensor) -> list[Tensor]:
    """Run one generator per level, each (N, C, nbins, h, w)."""
    return [generator(images) for generator in generators]


def time_call(function: Callable[[Tensor], Any], images: Tensor) -> float:
    """Return the seconds of one call."""
    watch = Stopwatch(images.device)
    watch.mark()
    function(images)
    watch.mark()
    return sum(watch.laps())


def synthetic_images(count: int, size: int) -> Tensor:
    """Draw normalised RGB images with both smooth and fine structure."""
    coarse = torch.randn(count, 3, 7, 7)
    smooth = F.interpolate(coarse, (size, size), mode="bicubic")
    return smooth + 0.1 * torch.randn_like(smooth)
