"""What is chosen for a run on one's own images: sizes, epochs, batch, rate, workers."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

# Without a GPU a run sees about this many images, some hours of a small model.
_SEEN_ON_CPU = {"pretrain": 100_000, "finetune": 20_000}
_SEEN_ON_GPU = {"pretrain": 100_000_000, "finetune": 10_000_000}
_FEWEST = {"pretrain": 100, "finetune": 30}
_MOST = {"pretrain": 800, "finetune": 100}
# Patches of an image, at least: fewer leave nothing to predict the removed ones from.
_FEWEST_PATCHES = 36


def choose_epochs(kind: str, images: int, gpu: bool) -> int:
    """The length of a run: small sets are seen more often.

    Args:
        kind: ``pretrain`` or ``finetune``.
        images: Number of training images.
        gpu: Whether there is one; else the run is kept short.
    """
    seen = (_SEEN_ON_GPU if gpu else _SEEN_ON_CPU)[kind]
    fewest = _FEWEST[kind] if gpu else 1
    return min(max(round(seen / images), fewest), _MOST[kind])


def choose_warmup(epochs: int) -> int:
    """Epochs of warm-up: a tenth, 40 at most as in the recipes; none of one epoch."""
    return min(40, max(1, round(epochs / 10))) if epochs > 1 else 0


def choose_batch(images: int, gpu: bool) -> int:
    """Images of a step: a power of two of which an epoch has four, within bounds.

    Args:
        images: Number of training images.
        gpu: Whether there is one.
    """
    most = 1024 if gpu else 64
    wanted = 2 ** int(math.log2(max(1, images / 4)))
    return max(1, min(max(wanted, 8), most, images))


def choose_rate(recipe: float, recipe_batch: int, batch: int) -> float:
    """The learning rate for a batch, by the square root, as is usual for Adam.

    The recipes' linear rule is for batches of thousands; small ones would hardly learn.
    """
    return float(f"{recipe * math.sqrt(batch / recipe_batch):.3g}")


def choose_workers(images: int) -> int:
    """Loading processes: the cores, 16 at most; none for the few images of a batch."""
    if images < 64:
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    return min(cores or os.cpu_count() or 1, 16)


def choose_size(size: tuple[int, int], one_size: bool) -> tuple[int, int]:
    """Height and width of the images that a model gets.

    Args:
        size: Median of the images' sizes.
        one_size: Whether all have it: then it is taken, up to 224 pixels.
    """
    if one_size and max(size) <= 224 and _patches(size):
        return size
    side = max(16, min(224, min(size) // 16 * 16))
    return side, side


def choose_patch(size: Sequence[int], multi_scale: bool = False) -> int:
    """Side of the patches: the largest that leaves enough of them.

    Args:
        size: Height and width of images in pixels.
        multi_scale: Whether cells of a quarter and of twice a patch are needed, too
            (LocalMIM).

    Raises:
        ValueError: If none divides the size.
    """
    found = _patches(size)
    if multi_scale:
        found = [x for x in found if x % 4 == 0 and not any(y % (2 * x) for y in size)]
    if not found:
        unit = 32 if multi_scale else 16
        better = [max(unit, round(x / unit) * unit) for x in size]
        raise ValueError(
            f"img_size={by(size)} cannot be divided into patches of 2 to 16 pixels, "
            f"at least {_FEWEST_PATCHES} of them: take img_size={by(better)}"
        )
    return found[0]


def check_patch(size: Sequence[int], patch: int, fixed: bool = False) -> None:
    """Checks that a patch divides the images.

    Args:
        size: Height and width of images in pixels.
        patch: Side of the patches.
        fixed: Whether it is that of a trained encoder.

    Raises:
        ValueError: With the nearest size that it divides.
    """
    other = "" if fixed else ", or another patch_size"
    if any(x % patch for x in size):
        better = [max(patch, round(x / patch) * patch) for x in size]
        raise ValueError(
            f"img_size={by(size)} cannot be divided into patches of {patch}x{patch} "
            f"pixels: take img_size={by(better)}{other}"
        )


def _patches(size: Sequence[int]) -> list[int]:
    """Sides of patches that divide an image into enough of them, largest first."""
    height, width = size
    common = math.gcd(height, width)
    return [
        side
        for side in range(16, 1, -1)
        if common % side == 0 and height * width // side**2 >= _FEWEST_PATCHES
    ]


def by(size: Sequence[int]) -> str:
    """A size in words: one number for a square."""
    return "x".join(map(str, size)) if len(set(size)) > 1 else str(size[0])


def as_size(img_size: int | Sequence[int]) -> tuple[int, int]:
    """Height and width.

    Raises:
        ValueError: If it is neither one number nor two.
    """
    sides = [img_size] * 2 if isinstance(img_size, int) else list(img_size)
    sides = sides * 2 if len(sides) == 1 else sides
    if len(sides) != 2 or any(not isinstance(x, int) or x < 1 for x in sides):
        raise ValueError(
            f"img_size is the side of a square in pixels, or height and width, not "
            f"{img_size!r}"
        )
    return sides[0], sides[1]


def check_counts(**counts: int | None) -> None:
    """Checks numbers that the user gave.

    Raises:
        ValueError: Naming the first that is no positive integer.
    """
    for name, value in counts.items():
        if value is not None and (not isinstance(value, int) or value < 1):
            raise ValueError(f"{name} is a positive number, not {value!r}")
