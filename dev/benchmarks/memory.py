"""What activation checkpointing saves: ``tools/benchmark.py memory``."""

from __future__ import annotations

import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS
from torch import Tensor

from mim_plugins.engine import load_config

from .step import device_name, provenance
from .timing import MIB, saved_bytes

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "checkpointed": {"model.backbone.with_cp": True, "model.neck.with_cp": True},
}


def run_memory(
    config: str,
    batch_size: int = 2,
    threads: int = 1,
    cfg_options: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Measure a forward and backward pass on the CPU with and without checkpointing.

    Each variant runs in a process of its own, so that the peak of its resident memory
    is its own.

    Args:
        config: Path of a pre-training config.
        batch_size: Images in a batch.
        threads: CPU threads.
        cfg_options: Overrides of the config's entries.

    Returns:
        A report that can be written as JSON.

    Raises:
        TypeError: If the config's encoder or neck knows no ``with_cp``.
    """
    entries: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder) / f"{name}.pth" for name in VARIANTS}
        for name, options in VARIANTS.items():
            options = {**(cfg_options or {}), **options}
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                arguments = (config, options, batch_size, threads, files[name])
                entries[name] = pool.submit(measure, *arguments).result()
        gradients = [torch.load(file, weights_only=True) for file in files.values()]
    plain, lean = (entry["saved_mib"] for entry in entries.values())
    return {
        "benchmark": "memory",
        "config": str(config),
        "device": device_name(torch.device("cpu")),
        "batch_size": batch_size,
        "threads": threads,
        "implementations": entries,
        "times_fewer_bytes_saved": plain / lean,
        "max_gradient_difference": largest_difference(*gradients),
        **provenance(),
    }


def measure(
    config: str,
    cfg_options: dict[str, Any],
    batch_size: int,
    threads: int,
    gradients: Path,
) -> dict[str, float]:
    """Measure one variant in this process and store its gradients.

    Args:
        config: Path of a pre-training config.
        cfg_options: Overrides of the config's entries.
        batch_size: Images in a batch.
        threads: CPU threads.
        gradients: Where to store the gradients.

    Returns:
        In MiB: ``saved_mib``, all distinct storages that autograd saves, parameters
        excluded; the peak of resident memory after the model is built and after the
        backward pass.
    """
    # Not on Windows, where nothing else needs it.
    import resource

    import mim_plugins  # noqa: F401

    def peak_mib() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MIB

    MMLogger.get_current_instance().setLevel("WARNING")
    torch.set_num_threads(threads)
    cfg = load_config(config, cfg_options)
    init_default_scope(cfg.get("default_scope", "mmpretrain"))
    torch.manual_seed(0)
    model = MODELS.build(cfg.model).train()
    model.init_weights()
    rows, cols = (
        patches * pixels
        for patches, pixels in zip(
            model.backbone.grid, model.backbone.mask_patch_size, strict=True
        )
    )
    images = torch.randn(batch_size, model.backbone.in_channels, rows, cols)
    built = peak_mib()

    def forward() -> Tensor:
        torch.manual_seed(1)
        losses = model.loss(images, {"seed": torch.arange(batch_size)})
        return torch.stack(list(losses.values())).sum()

    saved = saved_bytes(forward, model.parameters())
    forward().backward()
    peak = peak_mib()
    torch.save(
        {n: p.grad for n, p in model.named_parameters() if p.grad is not None},
        gradients,
    )
    return {"saved_mib": saved / MIB, "built_rss_mib": built, "peak_rss_mib": peak}


def largest_difference(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """The largest difference of two sets of tensors, each relative to its largest."""
    if set(a) != set(b):
        raise ValueError(f"only one has gradients of {sorted(set(a) ^ set(b))}")
    differences = [
        float((a[name] - b[name]).abs().max() / a[name].abs().max().clamp(min=1e-30))
        for name in a
    ]
    return max(differences)
