"""What the command line changes in a config before it is built."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping, MutableSequence
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.device import get_device

from ..environment import SHARDING, has_fast_bfloat16
from ..running.loading import TIMEOUT

PRECISIONS = ("fp32", "bf16", "fp16")

_WRAPPERS = {
    "fp32": dict(type="OptimWrapper"),
    "bf16": dict(type="AutocastOptimWrapper", dtype="bfloat16"),
    "fp16": dict(type="AmpOptimWrapper", dtype="float16", loss_scale="dynamic"),
}


def apply_precision(cfg: Config, precision: str | None = None) -> str:
    """Choose the optimiser wrapper that computes in the wanted precision.

    Without a wish, a wrapper other than mmengine's plain ``OptimWrapper`` in the config
    is kept; otherwise it is bfloat16 on a GPU that has it and float32 elsewhere. For
    detection (``default_scope="mmdet"``) it is float16 on a GPU: mmcv's RoIAlign and
    NMS are not there in bfloat16, and official recipes are in float16.

    Args:
        cfg: The config; ``optim_wrapper`` is changed in place.
        precision: ``fp32``, ``bf16``, ``fp16`` or None.

    Returns:
        A line for the log.

    Raises:
        ValueError: If the precision is unknown, or the device or detection cannot
            compute in it.
    """
    if precision is not None and precision not in PRECISIONS:
        raise ValueError(
            f"precision must be one of {', '.join(PRECISIONS)}, but got {precision!r}."
        )
    device = get_device()
    detection = cfg.get("default_scope") == "mmdet"
    wrapper = cfg.optim_wrapper
    if "optimizer" not in wrapper:
        return "precision: as the config's optimizer wrappers have it"
    kind = wrapper.get("type", "OptimWrapper")
    kind = kind if isinstance(kind, str) else kind.__name__
    if precision is None:
        if kind == "AmpOptimWrapper" and device == "cpu":
            raise ValueError(
                "The config sets AmpOptimWrapper, which needs a GPU, and there is "
                "none; give --precision fp32"
                + ("." if detection else " or --precision bf16.")
            )
        if kind != "OptimWrapper":
            return f"precision: set by {kind} of the config"
        if detection:
            precision = "fp16" if device == "cuda" else "fp32"
        else:
            precision = "bf16" if has_fast_bfloat16() else "fp32"
    if detection and precision == "bf16":
        raise ValueError(
            "--precision bf16 (--amp) is not for detection (default_scope is mmdet): "
            "mmcv's RoIAlign and NMS do not compute in bfloat16; use fp16 on a GPU, "
            "which is the default there, or fp32."
        )
    if precision == "fp16" and device == "cpu":
        raise ValueError(
            "--precision fp16 needs a GPU, and there is none; on a CPU use "
            f"{'fp32' if detection else 'bf16 or fp32'}."
        )
    for key in ("type", "dtype", "loss_scale", "use_fsdp"):
        wrapper.pop(key, None)
    wrapper.update(_WRAPPERS[precision])
    if precision == "fp16" and _sharded(cfg):
        # Every process has its own part of the gradients: all are asked for overflows.
        wrapper["use_fsdp"] = True
    return f"precision: {precision} on {device}"


def _sharded(cfg: Config) -> bool:
    """Whether a run shards its parameters (FSDP)."""
    return (cfg.get("strategy") or {}).get("type") in SHARDING


class GlobalBatch(NamedTuple):
    """How many images one step of the optimiser sees, and in which parts."""

    per_process: int
    processes: int
    accumulated: int

    @property
    def per_iteration(self) -> int:
        """Images of one iteration, on all processes together."""
        return self.per_process * self.processes

    @property
    def size(self) -> int:
        """Images of one step of the optimiser."""
        return self.per_iteration * self.accumulated


def global_batch(cfg: Config, world_size: int) -> GlobalBatch | None:
    """Return the batch a config trains with, or None if it does not say.

    Args:
        cfg: The config.
        world_size: Number of processes.
    """
    loader = cfg.train_dataloader
    per_process = loader.get("batch_size")
    if per_process is None:
        per_process = (loader.get("batch_sampler") or {}).get("batch_size")
    if per_process is None:
        return None
    accumulated = cfg.optim_wrapper.get("accumulative_counts", 1)
    return GlobalBatch(per_process, world_size, accumulated)


def scale_learning_rate(cfg: Config, world_size: int) -> str:
    """Scale the learning rate linearly to the real global batch size.

    mmengine's own scaling leaves gradient accumulation out, so it is done here and
    switched off there. The rule is that of "Accurate, Large Minibatch SGD" (2017,
    https://arxiv.org/abs/1706.02677). Absolute final rates of schedules stay as they
    are. The config that is stored with the run names the real batch size as the base,
    so that running it again does not scale twice.

    Args:
        cfg: The config; ``optim_wrapper`` and ``auto_scale_lr`` are changed in place.
        world_size: Number of processes.

    Returns:
        A line for the log.
    """
    base = (cfg.get("auto_scale_lr") or {}).get("base_batch_size")
    optimizer: dict[str, Any] = cfg.optim_wrapper.get("optimizer") or {}
    if base is None or optimizer.get("lr") is None:
        missing = "auto_scale_lr.base_batch_size" if base is None else "optimizer.lr"
        return f"learning rate: not scaled, the config has no {missing}"
    batch = global_batch(cfg, world_size)
    if batch is None:
        return "learning rate: not scaled, train_dataloader has no batch_size"
    real = batch.size
    configured = optimizer["lr"]
    optimizer["lr"] = configured * real / base
    cfg.auto_scale_lr = dict(base_batch_size=real, enable=False)
    return (
        f"learning rate: {configured:g} for a batch of {base} x factor "
        f"{real / base:g} = {optimizer['lr']:g} for the real batch of {real} "
        f"({batch.per_process} per process x {batch.processes} processes x "
        f"{batch.accumulated} accumulated)"
    )


class Note(NamedTuple):
    """A line for the log, which says what was decided.

    Args:
        message: The line.
        level: As of :mod:`logging`.
    """

    message: str
    level: int = logging.INFO


def plain_batch_norm(cfg: Config) -> None:
    """Let batch norm take the statistics of one process; over several only GPUs can.

    Args:
        cfg: The config; ``model`` is changed in place.
    """
    _replace(cfg._cfg_dict["model"], "type", "SyncBN", "BN")


def _replace(node: Any, key: str, old: Any, new: Any) -> None:
    """Replace a value under a key wherever it stands in nested dicts and lists."""
    if isinstance(node, MutableMapping):
        if node.get(key) == old:
            node[key] = new
        children: Any = node.values()
    elif isinstance(node, (MutableSequence, tuple)):
        children = node
    else:
        return
    for child in children:
        _replace(child, key, old, new)


def complete_dataloaders(cfg: Config) -> None:
    """Set what depends on the machine, and mmpretrain's defaults for its configs.

    mmpretrain's configs leave collating, pinned memory and persistent workers to its
    training tool; those of mmdet and mmseg say everything themselves.

    Args:
        cfg: The config; its data loaders are changed in place.
    """
    cuda = get_device() == "cuda"
    for name in ("train_dataloader", "val_dataloader", "test_dataloader"):
        loader = cfg.get(name)
        if not isinstance(loader, MutableMapping):
            continue
        workers = loader.get("num_workers", 0)
        if cfg.get("default_scope") == "mmpretrain":
            loader.setdefault("collate_fn", dict(type="default_collate"))
            loader.setdefault("pin_memory", True)
            loader.setdefault("persistent_workers", True)
        sampler = loader.get("sampler")
        if isinstance(sampler, MutableMapping) and sampler["type"] == "EpochSampler":
            batches = loader.get("batch_sampler") or loader
            sampler.setdefault("drop_last", batches.get("drop_last", False))
        if not cuda and "pin_memory" in loader:
            loader["pin_memory"] = False
        if workers:
            # Else a worker that stands still is waited for in silence.
            loader.setdefault("timeout", TIMEOUT)
        else:
            # torch refuses these without workers.
            for key in ("persistent_workers", "prefetch_factor", "timeout"):
                loader.pop(key, None)
