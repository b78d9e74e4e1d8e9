"""How much space the checkpoints of a run need, and how much there is."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mmengine.hooks import CheckpointHook, EMAHook
from mmengine.runner import Runner
from torch import Tensor

from ...checkpoints.files.atomic import readable
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
    kept = _number_kept(runner, hook)
    # The newest is written before the oldest is removed.
    needed = size * (kept + 1)
    described = f"{kept} are kept" if kept > 1 else "1 is kept"
    if hook.save_best:
        without_optimizer = model * (2 if averaged else 1)
        needed += without_optimizer * len(hook.key_indicators)
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


def _number_kept(runner: Runner, hook: CheckpointHook) -> int:
    if hook.max_keep_ckpts > 0:
        return hook.max_keep_ckpts
    length = runner.max_epochs if hook.by_epoch else runner.max_iters
    return max(1, (length or 0) // hook.interval) if hook.interval > 0 else 1
