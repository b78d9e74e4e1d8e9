"""Schedules that follow the length of the run, and warnings where they do not.

A scheduler without ``end`` lasts to the end of the run, which mmengine fills in, and a
cosine without ``T_max`` as long as it is active: configs leave both out.
"""

from __future__ import annotations

from typing import Any

from mmengine.config import Config

from .settings import global_batch


def run_length(cfg: Config) -> tuple[int | None, str]:
    """How long a config trains.

    Args:
        cfg: The config.

    Returns:
        The number, or None if the config does not say, and ``epoch`` or ``iteration``.
    """
    train_cfg = cfg.get("train_cfg") or {}
    if not isinstance(train_cfg, dict):  # refused when values are checked
        return None, "iteration"
    if train_cfg.get("max_epochs") is not None:
        return train_cfg["max_epochs"], "epoch"
    return train_cfg.get("max_iters"), "iteration"


def plain_schedulers(cfg: Config) -> list[Any]:
    """The schedulers of a config with one optimiser.

    Args:
        cfg: The config.
    """
    schedulers = cfg.get("param_scheduler") or []
    if isinstance(schedulers, dict):
        schedulers = [schedulers] if "type" in schedulers else []
    return [s for s in schedulers if isinstance(s, dict)]


def _unit(scheduler: dict) -> str:
    return "epoch" if scheduler.get("by_epoch", True) else "iteration"


def counts_steps(cfg: Config) -> bool:
    """Whether schedulers count steps of the optimiser, not iterations of the loop.

    Args:
        cfg: The config.
    """
    hook = (cfg.get("default_hooks") or {}).get("param_scheduler") or {}
    return hook.get("type") == "AccumulationHook"


def scale_milestones(cfg: Config, before: int | None, options: dict[str, Any]) -> None:
    """Keep the milestones of a step schedule at their shares of a run's new length.

    Args:
        cfg: The config, with another length than before; changed in place.
        before: Its length before.
        options: Those that changed it; milestones they set are kept.
    """
    now, unit = run_length(cfg)
    if not isinstance(before, int) or not before or not now or before == now:
        return
    for index, scheduler in enumerate(plain_schedulers(cfg)):
        own = f"param_scheduler.{index}"
        given = any(key == "param_scheduler" or key.startswith(own) for key in options)
        if "milestones" in scheduler and _unit(scheduler) == unit and not given:
            scheduler["milestones"] = [
                round(stone * now / before) for stone in scheduler["milestones"]
            ]


def leave_out_unreached(cfg: Config) -> None:
    """Leave schedulers out that would begin after the end of a short run.

    mmengine refuses them, as their end, that of the run, comes before their beginning.

    Args:
        cfg: The config; ``param_scheduler`` is changed in place.
    """
    length, unit = run_length(cfg)
    if length is None or not isinstance(cfg.get("param_scheduler"), list):
        return
    cfg.param_scheduler = [
        scheduler
        for scheduler in cfg.param_scheduler
        if _unit(scheduler) != unit
        or "end" in scheduler
        or scheduler.get("begin", 0) < length
    ]


def describe_schedule(cfg: Config) -> str:
    """Say in a line how the learning rate goes.

    Args:
        cfg: The config.
    """
    length, unit = run_length(cfg)
    steps = []
    for scheduler in plain_schedulers(cfg):
        own = _unit(scheduler)
        end = scheduler.get("end", length if own == unit else "the end")
        step = f"{scheduler['type']} from {own} {scheduler.get('begin', 0)} to {end}"
        if "milestones" in scheduler:
            step += f", at {', '.join(map(str, scheduler['milestones']))}"
        steps.append(step)
    duration = "as long as the loop runs"
    if length is not None:
        duration = f"{length} {unit}{'s' * (length != 1)}"
    return f"schedule: {duration}; " + ("; ".join(steps) or "a constant learning rate")


def check_length(cfg: Config) -> str | None:
    """Compare the ends that schedulers name with the end of the run.

    Args:
        cfg: The config; not changed.

    Returns:
        A warning for the log, or None if the schedule ends with the run or counts in
        another unit.
    """
    length, unit = run_length(cfg)
    if length is not None and unit == "iteration" and counts_steps(cfg):
        length //= cfg.optim_wrapper.get("accumulative_counts", 1)
    schedulers = [
        (index, s) for index, s in enumerate(plain_schedulers(cfg)) if _unit(s) == unit
    ]
    if length is None or not schedulers:
        return None
    ends = {index: s.get("end", length) for index, s in schedulers}
    last = max(ends, key=lambda index: ends[index])
    end = ends[last]
    key = f"param_scheduler.{last}"
    if end != length and len(ends) == 1 + last == 1 and _is_warm_up(schedulers[0][1]):
        return (
            f"schedule: the run ends at {unit} {length}, within the warm-up of {end} "
            f"{unit}s: set {key}.end, and begin of what follows, to fewer"
        )
    if end != length:
        return (
            f"schedule: {schedulers[-1][1]['type']} ends at {unit} {end}, but the run "
            f"at {unit} {length}. Leave end (and T_max) out of {key} in the config, "
            "and it lasts to the end of the run, or set them with the run's length"
        )
    for index, scheduler in schedulers:
        active = ends[index] - scheduler.get("begin", 0)
        if scheduler.get("T_max", active) != active:
            return (
                f"schedule: T_max={scheduler['T_max']} of {scheduler['type']} is not "
                f"the {active} {unit}s it is active for. Leave "
                f"param_scheduler.{index}.T_max out of the config, and it is"
            )
    return None


def _is_warm_up(scheduler: dict) -> bool:
    return scheduler.get("start_factor", 1) < 1 and scheduler.get("begin", 0) == 0


def check_schedule(cfg: Config, world_size: int) -> str | None:
    """Compare what a schedule in iterations sees with what it is meant to see.

    The learning rate is scaled to the real batch, the number of iterations is not: with
    a quarter of the batch, 100 epochs are 25.

    Args:
        cfg: The config, before :func:`scale_learning_rate`; not changed.
        world_size: Number of processes.

    Returns:
        A warning for the log with the options that make up for it, or None if the batch
        is that of the config or the schedule counts epochs.
    """
    base = (cfg.get("auto_scale_lr") or {}).get("base_batch_size")
    iterations, batch = cfg.train_cfg.get("max_iters"), global_batch(cfg, world_size)
    if base is None or iterations is None or batch is None:
        return None
    # Iterations are those of the loop, whether the optimiser steps in each or not.
    real = batch.size if counts_steps(cfg) else batch.per_iteration
    if real == base:
        return None
    times, change = (base / real, "fewer") if real < base else (real / base, "more")
    options = {"train_cfg.max_iters": round(iterations * base / real)}
    for index, scheduler in enumerate(plain_schedulers(cfg)):
        # Those that run to the end; a warm-up stays as it is.
        last = scheduler.get("end", iterations)
        if scheduler.get("by_epoch", True) or last != iterations:
            continue
        end = options["train_cfg.max_iters"]
        lengthened: dict[str, Any] = dict(end=end) if "end" in scheduler else {}
        if "T_max" in scheduler:
            lengthened["T_max"] = end - scheduler.get("begin", 0)
        if "milestones" in scheduler:
            stones = (round(m * base / real) for m in scheduler.milestones)
            lengthened["milestones"] = "[" + ",".join(map(str, stones)) + "]"
        for key, value in lengthened.items():
            options[f"param_scheduler.{index}.{key}"] = value
    return (
        f"schedule: {iterations} iterations are meant for a global batch of {base}; "
        f"this run has {real} images in an iteration and sees {times:g} times {change} "
        "images: for as many as meant, use that batch (more GPUs, or "
        "train_dataloader.batch_size), or --cfg-options "
        + " ".join(f"{key}={value}" for key, value in options.items())
    )
