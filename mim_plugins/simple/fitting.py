"""The largest batch that fits, found by a step, and what a run costs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from mmengine.device import get_device
from torch import Tensor, nn

from ..engine.environment import has_fast_bfloat16, suitable_threads

# Images of the step that is measured without a GPU.
_ON_CPU = 4
# Of an AdamW step: weights, gradients and two moments.
_COPIES = 4
# What else a step needs, relative to what it keeps for the backward pass.
_OVERHEAD = 1.5


class Trial(NamedTuple):
    """What a step has shown.

    Args:
        batch: The largest number of images that fits, up to the wanted one.
        seconds: Of a step, per image.
        parameters: Number of parameters of the model.
    """

    batch: int
    seconds: float
    parameters: int


def try_batch(
    model: nn.Module, images: Callable[[int], dict[str, Any]], wanted: int
) -> Trial:
    """Finds how many images fit in a step.

    On a GPU, steps are tried with fewer and fewer images. On a CPU the memory of a
    small step is measured and compared with what is free.

    Args:
        model: The model, without weights of importance: they are changed.
        images: Makes a batch of some number of images, as a loader does.
        wanted: The largest batch to try.

    Raises:
        ValueError: If not even one image fits.
    """
    parameters = sum(x.numel() for x in model.parameters())
    if get_device() != "cuda":
        with suitable_threads(model, wanted):
            batch, seconds = _on_cpu(model, images, wanted, parameters)
        return Trial(batch, seconds, parameters)
    model.cuda()
    batch = wanted
    while batch:
        try:
            _step(model, images(batch))  # the first one chooses kernels
            start = time.perf_counter()
            _step(model, images(batch))
            torch.cuda.synchronize()
            seconds = (time.perf_counter() - start) / batch
            break
        except torch.cuda.OutOfMemoryError:
            model.zero_grad()
            torch.cuda.empty_cache()
            batch //= 2
    else:
        raise ValueError(_TOO_LARGE)
    model.cpu()
    torch.cuda.empty_cache()
    return Trial(batch, seconds, parameters)


_TOO_LARGE = (
    "not even one image fits into memory: take a smaller model (such as _vitt), a "
    "smaller img_size, or a larger patch_size"
)


def _on_cpu(
    model: nn.Module, images: Callable[[int], dict], wanted: int, parameters: int
) -> tuple[int, float]:
    """The batch that fits into free memory, and the seconds of a step per image."""
    taken = min(_ON_CPU, wanted)
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    weights = 4 * parameters * _COPIES
    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        _step(model, images(taken))
    start = time.perf_counter()  # the first step chooses kernels
    _step(model, images(taken))
    seconds = (time.perf_counter() - start) / taken
    activations = max(1, sum(kept.values()) - 4 * parameters)
    of_one = _OVERHEAD * activations / taken
    batch = wanted
    while batch and batch * of_one > free_memory() - weights:
        batch //= 2
    if not batch:
        raise ValueError(_TOO_LARGE)
    return batch, seconds


def free_memory() -> int:
    """Bytes of memory that can be had without swapping; a guess where unknown."""
    try:
        with open("/proc/meminfo") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 8 * 2**30


def _step(model: Any, data: dict[str, Any]) -> None:
    """A step of AdamW, in the precision of the run."""
    model.train()
    device = next(model.parameters()).device
    optimizer = torch.optim.AdamW(
        [x for x in model.parameters() if x.requires_grad], lr=0.0
    )
    half = device.type == "cuda" and has_fast_bfloat16()
    with torch.autocast(device.type, torch.bfloat16, enabled=half):
        losses = model(**model.data_preprocessor(data, True), mode="loss")
    loss, _ = model.parse_losses(losses)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
