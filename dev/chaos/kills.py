"""Runs that are killed at random moments, and end as if nothing had happened."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from mim_plugins.checkpoints.files.reading import read_meta, verify

from .attempt import Attempt
from .scene import BATCH, Scene, differing, final_weights, losses

# What runs differ in. But for accumulation, it has no influence on their weights.
KEPT = (1, 3)
WORKERS = (0, 2)
WHEN: dict[str, dict[str, Any]] = {
    "by epoch": {"default_hooks.checkpoint.interval_minutes": None},
    "by iterations": {
        "default_hooks.checkpoint.by_epoch": False,
        "default_hooks.checkpoint.interval": 3,
        "default_hooks.checkpoint.interval_minutes": None,
    },
    "by time": {"default_hooks.checkpoint.interval_minutes": 0.005},
    # Two iterations make a step, and a checkpoint comes between them.
    "accumulated": {
        "default_hooks.checkpoint.by_epoch": False,
        "default_hooks.checkpoint.interval": 3,
        "default_hooks.checkpoint.interval_minutes": None,
    },
}

# At most so many kills of a run, and when they come: at any time, while a checkpoint is
# being written, or just after it got its name, when older ones are removed.
MOST = 5
MOMENTS = ("any", "saving", "saving", "renamed")

# Draws of every step, and state of the optimiser and of averages, which are to be kept.
_CHANGES = {
    "model.backbone.drop_rate": 0.1,
    "optim_wrapper.optimizer": dict(_delete_=True, type="AdamW", lr=1e-3),
    "custom_hooks": [dict(type="StepEMAHook", momentum=0.1)],
}

# Seconds from the start of a run within which it is killed at any time.
_LONGEST = 6.0


def killed_runs(
    scene: Scene, runs: int, processes: int, seed: int, ballast: float
) -> Iterator[dict[str, Any]]:
    """Train, kill, and resume with ``--resume auto``; compare the final weights.

    Args:
        scene: The images, and a folder.
        runs: How many runs.
        processes: Processes of a run.
        seed: Of what is drawn.
        ballast: Size of the checkpoints in megabytes.

    Yields:
        What happened in each run.
    """
    scene = Scene(scene.folder, scene.images, _CHANGES)
    halves = {"train_dataloader.batch_size": max(1, BATCH // processes // 2)}
    wanted: dict[bool, dict[str, Tensor]] = {}
    kinds = list(product(WHEN, KEPT, WORKERS))
    random.Random(seed).shuffle(kinds)
    for number in range(runs):
        when, kept, workers = kinds[number % len(kinds)]
        changes = WHEN[when] | {
            "default_hooks.checkpoint.max_keep_ckpts": kept,
            "train_dataloader.num_workers": workers,
            "train_dataloader.persistent_workers": workers > 0,
            "model.ballast": ballast / 2,  # of the weights, and of their averages
        }
        accumulated = when == "accumulated"
        if accumulated:
            changes |= halves
        if accumulated not in wanted:
            own = halves if accumulated else {}
            wanted[accumulated] = _uninterrupted(scene, processes, own)
        name = f"killed_{number}"
        config = scene.config(name, processes, **changes)
        draw = random.Random(f"{seed} {number}")
        began = time.monotonic()
        report = dict(part="kills", run=number, processes=processes, checkpoints=when)
        report |= dict(kept=kept, workers=workers)
        report |= _run(
            config, scene.folder / name, processes, draw, wanted[accumulated]
        )
        yield report | dict(seconds=round(time.monotonic() - began, 1))


def _uninterrupted(
    scene: Scene, processes: int, changes: dict[str, Any]
) -> dict[str, Tensor]:
    """The weights of a run that nobody kills."""
    name = "uninterrupted_in_halves" if changes else "uninterrupted"
    work_dir = scene.folder / name
    config = scene.config(name, processes, **changes)
    with Attempt(config, work_dir, None, processes) as run:
        if code := run.finish():
            raise RuntimeError(
                f"ended with {code} without a kill: {run.said()[-2000:]}"
            )
    return final_weights(work_dir)


def _run(
    config: Path,
    work_dir: Path,
    processes: int,
    draw: random.Random,
    wanted: dict[str, Tensor],
) -> dict[str, Any]:
    """One run, with one to five kills."""
    kills: list[dict[str, Any]] = []
    newest = 0
    for attempt in range(draw.randint(1, MOST)):
        resume = "auto" if attempt else None
        with Attempt(config, work_dir, resume, processes) as run:
            kill = _kill(run, draw)
        if not kill:
            if any(run.codes.values()):
                return dict(ok=False, kills=kills, why=run.said()[-2000:])
            continue  # it was faster
        kills.append(kill)
        before, newest = newest, _newest(work_dir)
        kill["left"] = newest
        if newest < before:
            why = f"iteration {before} was saved, and {newest} is left"
            return dict(ok=False, kills=kills, why=why)
    with Attempt(config, work_dir, "auto", processes) as run:
        if code := run.finish():
            why = f"exit code {code}: {run.said()[-2000:]}"
            return dict(ok=False, kills=kills, why=why)
    if differs := differing(wanted, final_weights(work_dir)):
        why = f"{len(differs)} tensors differ, such as {differs[0]}"
        return dict(ok=False, kills=kills, why=why)
    if work_dir.joinpath(".lock").read_text() or run.partial_files():
        return dict(ok=False, kills=kills, why="something of killed runs is left")
    return dict(ok=True, kills=kills)


def _kill(run: Attempt, draw: random.Random) -> dict[str, Any]:
    """Kill a run; nothing if it has ended before."""
    moment = draw.choice(MOMENTS)
    if moment == "any":
        alive = _wait(run, draw.random() * _LONGEST)
    else:
        alive = run.until(run.partial_file)
        if alive and draw.random() < 0.4:  # the next one
            run.until(lambda: run.partial_file() is None)
            alive = run.until(run.partial_file)
        if alive and moment == "renamed":
            alive = run.until(lambda: run.partial_file() is None)
        alive = alive and _wait(run, draw.random() ** 2 * 0.8)
    if not alive:
        return {}
    run.kill(draw)
    saving, there = run.partial_file() is not None, run.checkpoints()
    first = saving and not there
    return dict(moment=moment, saving=saving, first=first, there=len(there))


def _wait(run: Attempt, seconds: float) -> bool:
    end = time.monotonic() + seconds
    return run.until(lambda: time.monotonic() >= end)


def _newest(work_dir: Path) -> int:
    """The iteration of the newest checkpoint, all of which are complete."""
    newest = 0
    for path in work_dir.glob("[!.]*.pth"):
        verify(path)
        newest = max(newest, read_meta(path)["iter"])
    return newest


def other_processes(scene: Scene, seed: int) -> Iterator[dict[str, Any]]:
    """Kill a run, go on with another number of processes, compare the losses.

    Args:
        scene: The images, and a folder.
        seed: Of what is drawn.

    Yields:
        The largest difference of a step's loss from that of the uninterrupted run,
        relative to it.
    """
    draw = random.Random(seed)
    interval = {
        "default_hooks.checkpoint.by_epoch": False,
        "default_hooks.checkpoint.interval": 1,
    }
    for before, after in ((2, 1), (1, 2), (2, 4)):
        name = f"from_{before}_to_{after}"
        # The config stays: what a process takes, or accumulates, follows.
        config = scene.config(name, before, **interval)
        whole = scene.folder / f"{name}_uninterrupted"
        with Attempt(config, whole, None, before) as run:
            run.finish()
        work_dir = scene.folder / name
        at = draw.randint(3, 12)
        with Attempt(config, work_dir, None, before) as run:
            run.until((work_dir / f"iter_{at}.pth").exists)
            run.kill(draw)
        with Attempt(config, work_dir, "auto", after) as run:
            code = run.finish()
        # Where there are fewer processes, several iterations make a step.
        steps = np.array(losses(work_dir)).reshape(-1, max(1, before // after))
        steps = steps.mean(axis=1)
        report = dict(part="processes", before=before, after=after, steps=len(steps))
        if code or not len(steps):
            yield report | dict(ok=False, why=run.said()[-2000:])
            continue
        wanted = np.array(losses(whole))[-len(steps) :]
        largest = float(np.max(np.abs(steps - wanted) / np.abs(wanted)))
        yield report | dict(ok=largest <= 1e-6, largest=largest)
