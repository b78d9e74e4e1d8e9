"""Keeping a recipe's global batch on fewer GPUs, by accumulating gradients."""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS, Registry
from mmengine.runner import Runner

from ..hooks.accumulation import AccumulationHook, steps_per_epoch
from .schedules import counts_steps, plain_schedulers, run_length
from .settings import Note, global_batch, scale_learning_rate

_BATCH_NORM = re.compile(r"BN|BatchNorm")


def accumulate(
    cfg: Config, world_size: int, keep_batch: bool = True, size: int | None = None
) -> Note | None:
    """Accumulate gradients until a step has as many images as the recipe's.

    That takes a recipe's batch, ``auto_scale_lr.base_batch_size``, which is a multiple
    of the images of an iteration, and a model without batch norm, whose statistics are
    those of an iteration. A number the config sets, ``accumulative_counts``, is kept.
    Schedules then count steps of the optimiser, by :class:`AccumulationHook`; what
    counts iterations of the loop gets as many more of them, so that as many images are
    seen.

    Args:
        cfg: The config; changed in place.
        world_size: Number of processes.
        keep_batch: Whether to set a number where the config has none.
        size: The global batch of a run that goes on with other processes, instead of
            the recipe's.

    Returns:
        A line for the log, or None if nothing is accumulated.
    """
    wrapper = cfg.optim_wrapper
    if "optimizer" not in wrapper:  # several
        return None
    count = wrapper.get("accumulative_counts")
    _, unit = run_length(cfg)
    if count is None:
        base = (cfg.get("auto_scale_lr") or {}).get("base_batch_size")
        batch = global_batch(cfg, world_size)
        if size is not None:
            base, keep_batch = size, True
        if not keep_batch or base is None or batch is None:
            return None
        count, remainder = divmod(base, batch.per_iteration)
        if remainder or count <= 1:
            return None
        if norm := _batch_norm(cfg):
            return Note(
                f"batch: not accumulated to the recipe's {base}, since {norm} takes "
                "its statistics from single iterations"
            )
        wrapper.accumulative_counts = count
        _step_hooks(cfg, recipe_batch=base if size is None else None)
        message = (
            f"{batch.per_process} per GPU × {batch.processes} × {count} accumulated = "
            f"{base}, as the {'recipe' if size is None else 'checkpoint'}"
        )
        if unit == "iteration":
            steps, _ = run_length(cfg)
            _lengthen(cfg, count)
            message += (
                f"; {cfg.train_cfg.max_iters} iterations for its {steps}, and "
                f"intervals in iterations times {count}"
            )
        return Note(message)
    # In a schedule by iterations, a config that sets the number counts as the loop.
    if count > 1 and unit == "epoch":
        _step_hooks(cfg)
    if count > 1 and counts_steps(cfg) and (kinds := _other_averages(cfg)):
        return Note(
            f"batch: {', '.join(kinds)} of custom_hooks averages in every iteration, "
            f"though the optimiser steps in every {count}th: use StepEMAHook",
            logging.WARNING,
        )
    return None


def count_steps(runner: Runner) -> str | None:
    """Fit schedules in epochs to the optimiser's steps of an epoch.

    Where a data set is too small for the recipe's batch, it is given up, and the
    learning rate scaled.

    Args:
        runner: The runner with its train loop, before training.

    Returns:
        A line for the log, or None.

    Raises:
        ValueError: If an epoch has not one step of the number that the config sets.
    """
    hook = next((x for x in runner.hooks if isinstance(x, AccumulationHook)), None)
    cfg = runner.cfg
    if hook is None or run_length(cfg)[1] != "epoch":
        return None
    loader, count = runner.train_dataloader, cfg.optim_wrapper.accumulative_counts
    steps, said = steps_per_epoch(loader, count), None
    if hook.recipe_batch is not None and len(loader) < count:
        cfg.optim_wrapper.accumulative_counts = 1
        said = scale_learning_rate(cfg, runner.world_size)
        said = (
            f"batch: not accumulated, since the images of an epoch are fewer than the "
            f"recipe's batch of {hook.recipe_batch}; {said}"
        )
        runner.optim_wrapper = cfg.optim_wrapper
        runner.dump_config()
        steps = len(loader)
    elif not steps:
        raise ValueError(
            f"an epoch has {len(loader)} iterations, too few for a single step of "
            f"optim_wrapper.accumulative_counts={count}, and incomplete ones are "
            "dropped (train_dataloader.drop_last): set fewer"
        )
    schedulers = runner.param_schedulers or []
    for scheduler in [schedulers] if isinstance(schedulers, dict) else schedulers:
        if isinstance(scheduler, dict) and scheduler.get("convert_to_iter_based"):
            scheduler["epoch_length"] = steps
    return said


def _step_hooks(cfg: Config, recipe_batch: int | None = None) -> None:
    """Has schedules and averages count steps of the optimiser."""
    hook = dict(type="AccumulationHook", recipe_batch=recipe_batch)
    cfg.default_hooks = {**(cfg.get("default_hooks") or {}), "param_scheduler": hook}
    for hook in cfg.get("custom_hooks") or []:
        # mmpretrain's of the same name has arguments of its own.
        if hook["type"] == "EMAHook" and not {x for x in hook if "evaluate" in x}:
            hook["type"] = "StepEMAHook"


def _other_averages(cfg: Config) -> list[str]:
    kinds = [str(hook["type"]) for hook in cfg.get("custom_hooks") or []]
    return [kind for kind in kinds if kind.endswith("EMAHook") and "Step" not in kind]


def _lengthen(cfg: Config, count: int) -> None:
    """Multiplies what counts iterations of the loop; schedulers count steps."""
    train_cfg = cfg.train_cfg
    steps = train_cfg.max_iters
    for scheduler in plain_schedulers(cfg):
        if not scheduler.get("by_epoch", True):
            scheduler.setdefault("end", steps)
    for key in ("max_iters", "val_interval", "val_begin"):
        if key in train_cfg:
            train_cfg[key] *= count
    if train_cfg.get("dynamic_intervals"):
        train_cfg.dynamic_intervals = [
            (start * count, every * count)
            for start, every in train_cfg.dynamic_intervals
        ]
    hooks = [
        *(cfg.get("default_hooks") or {}).values(),
        *(cfg.get("custom_hooks") or []),
    ]
    for hook in hooks:
        if isinstance(hook, dict):
            if hook.get("by_epoch") is False and hook.get("interval", -1) > 0:
                hook["interval"] *= count
            if hook.get("begin_iter"):
                hook["begin_iter"] *= count


def _batch_norm(cfg: Config) -> str | None:
    """The first part of a model, by its config, that is or has batch norm."""
    scope = cfg.get("default_scope", "mmengine")
    with MODELS.switch_scope_and_registry(scope) as registry:
        return next(_with_batch_norm(cfg.model, registry), None)


def _with_batch_norm(node: Any, registry: Registry) -> Iterator[str]:
    if isinstance(node, (list, tuple)):
        for child in node:
            yield from _with_batch_norm(child, registry)
    if not isinstance(node, Mapping):
        return
    kind = node.get("type")
    name = kind if isinstance(kind, str) else getattr(kind, "__name__", "")
    if _BATCH_NORM.search(name):
        yield name
    found = registry.get(kind) if isinstance(kind, str) else kind
    if "norm_cfg" not in node and inspect.isclass(found):
        default = _default_norm(found)
        if _BATCH_NORM.search(str(default)):
            yield f"{default} of {name}"
    for child in node.values():
        yield from _with_batch_norm(child, registry)


def _default_norm(kind: type) -> str | None:
    """The type of norm a class has where its config names none."""
    for base in kind.__mro__[:-1]:
        own = vars(base).get("__init__")
        parameter = own and inspect.signature(own).parameters.get("norm_cfg")
        if parameter is not None:
            default = parameter.default
            return default.get("type") if isinstance(default, Mapping) else None
    return None
