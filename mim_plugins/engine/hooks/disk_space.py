"""How much space the checkpoints of a run need, and how much there is."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.hooks import EMAHook
from mmengine.runner import Runner
from torch import Tensor

from ...checkpoints.files.atomic import readable
from ..config.schedules import run_length
from .periodic import unwrapped


def describe_space(runner: Runner, hook: Any) -> tuple[int, str]:
    """Estimates the space for checkpoints, from the model and its optimiser.

    Args:
        runner: The runner of the training process, before the first step.
        hook: Its :class:`.AtomicCheckpointHook`.

    Returns:
        The level of a log message, a warning if there is too little, and the message.
    """
    model = _bytes(unwrapped(runner.model).state_dict().values())
    averaged = any(isinstance(x, EMAHook) for x in runner.hooks)
    size = model * (2 if averaged else 1)
    if hook.save_optimizer:
        size += _optimizer_bytes(runner.optim_wrapper)
    most = most_files(runner.cfg, vars(hook))
    needed = size * most.training
    described = f"{most.kept} are kept" if most.kept > 1 else "1 is kept"
    if most.best:
        needed += model * (2 if averaged else 1) * most.best  # without the optimiser
        described += f", and the best by {', '.join(hook.key_indicators)}"
    folder = Path(hook.out_dir)
    present = sum(x.stat().st_size for x in hook.training_checkpoints() if x.is_file())
    while not folder.is_dir():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    message = (
        f"checkpoints: about {readable(size)} each; {described}: at most "
        f"{readable(needed)} in {hook.out_dir} while one is written, where "
        f"{readable(free)} are free"
    )
    if needed - present <= free:
        return logging.INFO, message
    return logging.WARNING, (
        f"{message}, too little: make space, name another disk by --work-dir, or keep "
        "fewer by default_hooks.checkpoint.max_keep_ckpts"
    )


class MostFiles(NamedTuple):
    """How many checkpoints lie on the disk at most."""

    kept: int
    training: int  # while one is written: the newest comes before the oldest goes
    best: int


def most_files(cfg: Config, options: Mapping[str, Any]) -> MostFiles:
    """Counts the checkpoints that a run has on the disk at most.

    Args:
        cfg: The config of the run.
        options: The arguments of its hook.
    """
    length, unit = run_length(cfg)
    interval, limit = (options.get(x, -1) for x in ("interval", "max_keep_ckpts"))
    same_unit = options.get("by_epoch", True) == (unit == "epoch")
    # Other ones are as many as the run takes hours, or depend on the data.
    counted = options.get("interval_minutes") is None and (interval < 1 or same_unit)
    written = -(-length // interval) if length and interval > 0 and same_unit else 1
    if limit < 1 or (counted and written <= limit):
        kept = training = written
    else:
        kept, training = limit, limit + 1
    best = options.get("save_best")
    count = len(best) if isinstance(best, (list, tuple)) else int(bool(best))
    return MostFiles(kept, training, count)


def _bytes(tensors: Iterable[Any]) -> int:
    return sum(x.numel() * x.element_size() for x in tensors if isinstance(x, Tensor))


def _optimizer_bytes(wrapper: Any) -> int:
    """Size of an optimiser's averages of gradients, which appear in the first step."""
    if not hasattr(wrapper, "param_groups"):  # several optimisers
        return sum(_optimizer_bytes(part) for part in wrapper.values())
    total = 0
    for group in wrapper.param_groups:
        averages = 2 if "betas" in group else bool(group.get("momentum"))
        total += averages * _bytes(x for x in group["params"] if x.requires_grad)
    return total
