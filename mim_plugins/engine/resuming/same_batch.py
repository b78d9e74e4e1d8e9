"""The global batch of a run, which a resumed run keeps on any number of processes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from ...checkpoints.files.reading import read_meta
from ..config.schedules import run_length
from ..config.settings import GlobalBatch, Note, global_batch


class KeptBatch(NamedTuple):
    """The global batch of a checkpoint, which this run is given."""

    size: int
    note: Note


def keep_batch(cfg: Config, processes: int) -> KeptBatch | None:
    """Give a run that goes on with other processes the checkpoint's global batch.

    A process takes as many images as the config says, or the next smaller number of
    which a whole number of iterations makes a step.

    Args:
        cfg: The config, with ``resume`` and ``load_from``; changed in place.
        processes: Number of processes.

    Returns:
        None if nothing is resumed, the number of processes is the checkpoint's, or
        the config or the checkpoint does not say its batch.

    Raises:
        ValueError: If the batch cannot be divided by the number of processes.
    """
    batch = global_batch(cfg, processes)
    path = cfg.get("load_from") or ""
    if not cfg.get("resume") or batch is None or Path(path).is_dir():
        return None
    saved = read_meta(path).get("global_batch") or {}
    if saved.get("processes") in (None, processes):
        return None
    size = saved["per_iteration"] * saved["accumulated"]
    share, rest = divmod(size, processes)
    if rest:
        raise ValueError(
            f"--resume: the global batch of {size} cannot be divided by {processes} "
            f"processes: resume with {_divisors(size, processes)} processes"
        )
    largest = min(batch.per_process, share)
    per_process = next(n for n in range(largest, 0, -1) if share % n == 0)
    count = share // per_process
    wrapper, loader = cfg.optim_wrapper, cfg.train_dataloader
    if "accumulative_counts" in wrapper:
        if run_length(cfg)[1] == "iteration" and count != batch.accumulated:
            return None  # the schedule counts iterations of the config's number
        wrapper.accumulative_counts = count
    if per_process != batch.per_process:
        place = loader if "batch_size" in loader else loader.batch_sampler
        place["batch_size"] = per_process
    was = GlobalBatch(
        saved["per_iteration"] // saved["processes"],
        saved["processes"],
        saved["accumulated"],
    )
    now = GlobalBatch(per_process, processes, count)
    return KeptBatch(
        size,
        Note(
            f"resume: from {was.processes} process(es) to {processes}, the global "
            f"batch stays {size}: {_parts(was)} → {_parts(now)}"
        ),
    )


def _parts(batch: GlobalBatch) -> str:
    return (
        f"{batch.per_process} per process x {batch.processes} x {batch.accumulated} "
        "accumulated"
    )


def _divisors(size: int, near: int) -> str:
    """The two numbers of processes next to one that divide a batch."""
    below = max(n for n in range(1, near) if size % n == 0)
    above = next((n for n in range(near, size + 1) if size % n == 0), below)
    return f"{below}" if below == above else f"{below} or {above}"


class SameBatchHook(Hook):
    """Saves the global batch in checkpoints, and refuses to resume with another one.

    A checkpoint restores the learning rate and the schedules. With another number of
    images per step the schedule would end too early or too late, and the learning rate
    would be that of the old batch, whatever the log says. On another number of
    processes the same images make a step in other parts, which :func:`in_new_parts`
    counts; on the same number, two batches that are accumulated differently have other
    iterations and are refused, too.

    Args:
        batch: The batch of this run; None, if the config does not say, checks nothing.
        resuming: Whether the run resumes from the loaded checkpoint, rather than only
            using its weights.
    """

    def __init__(self, batch: GlobalBatch | None, resuming: bool) -> None:
        self.batch = batch
        self.resuming = resuming

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Save the batch along with epoch and iteration.

        Args:
            runner: The runner of the training process.
            checkpoint: What is about to be written.
        """
        if self.batch is not None:
            checkpoint["meta"]["global_batch"] = self._as_dict(self.batch)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare the batch of the checkpoint with this run's.

        Args:
            runner: The runner of the training process.
            checkpoint: What was read.

        Raises:
            ValueError: If they differ, or the checkpoint is no run's; mmengine has not
                restored anything by then.
        """
        if self.resuming and "epoch" not in checkpoint.get("meta", {}):
            raise ValueError(
                "--resume: this checkpoint holds weights alone, such as an official or "
                "a converted file; a run goes on only from one it saved itself. To "
                "start from these weights: --cfg-options load_from=CHECKPOINT"
            )
        if not self.resuming or self.batch is None:
            return
        old = checkpoint.get("meta", {}).get("global_batch")
        new = self._as_dict(self.batch)
        if old is None:
            runner.logger.info(
                "resume: the checkpoint does not say its global batch; its learning "
                f"rate and schedule match this run's batch of {self.batch.size} only "
                "if it is the same"
            )
            return
        same_size = old["per_iteration"] * old["accumulated"] == self.batch.size
        moved = old.get("processes", self.batch.processes) != self.batch.processes
        parts = ("per_iteration", "accumulated")
        if same_size and (moved or all(old[x] == new[x] for x in parts)):
            return
        raise ValueError(
            "--resume: the checkpoint was trained with a global batch of "
            f"{_describe(old)}, but this run has {_describe(new)}. Going on would "
            "keep the learning rate and the schedule of the old batch. Either "
            "resume with the same batch: train_dataloader.batch_size x processes "
            f"= {old['per_iteration']} (now {self.batch.per_process} x "
            f"{self.batch.processes}), optim_wrapper.accumulative_counts="
            f"{old['accumulated']}; or start a new schedule from these weights: "
            "--cfg-options load_from=CHECKPOINT instead of --resume"
        )

    @staticmethod
    def _as_dict(batch: GlobalBatch) -> dict[str, int]:
        return dict(
            per_iteration=batch.per_iteration,
            accumulated=batch.accumulated,
            processes=batch.processes,
        )


def _describe(saved: Mapping[str, int]) -> str:
    images, accumulated = saved["per_iteration"], saved["accumulated"]
    return (
        f"{images * accumulated} ({images} per iteration x {accumulated} accumulated)"
    )


# What follows from the number of processes, by the keys of a config.
_FOLLOWS = (
    "train_dataloader.batch_size",
    "train_dataloader.batch_sampler.batch_size",
    "optim_wrapper.accumulative_counts",
    "train_cfg.max_iters",
    "train_cfg.val_interval",
    "train_cfg.val_begin",
)

_END = re.compile(r"param_scheduler\.\d+\.end")


def in_new_parts(
    meta: dict[str, Any], saved: dict[str, Any], now: Mapping[str, Any]
) -> None:
    """Count what a checkpoint has done in iterations of a run with other processes.

    A step of the optimiser has the same images, in another number of iterations.

    Args:
        meta: ``iter`` and ``epoch`` of the checkpoint; changed in place.
        saved: What the checkpoint records of its run; changed in place.
        now: The same of this run. ``global_batch`` of both says in how many
            iterations a step is made.
    """
    old, new = meta.get("global_batch") or {}, now.get("accumulated")
    if not saved or not new or old.get("processes") in (None, now["processes"]):
        return
    before = old["accumulated"]
    if now["unit"] == "iteration":
        meta["iter"] = meta["iter"] // before * new
        if saved["length"] is not None:
            saved["length"] = saved["length"] // before * new
    else:
        length = saved["epoch_length"]
        done = meta["iter"] - meta["epoch"] * length
        ended = done == length
        done = now["epoch_length"] if ended else done // before * new
        meta["iter"] = meta["epoch"] * now["epoch_length"] + done
    saved["epoch_length"] = now["epoch_length"]
    settings, ours = saved.get("settings", {}), now["settings"]
    # Ends of schedules are named where gradients are accumulated; the schedules
    # themselves are compared as well.
    ends = {key for key in settings.keys() ^ ours.keys() if _END.fullmatch(key)}
    for key in (*_FOLLOWS, *ends):
        settings.pop(key, None)
        if key in ours:
            settings[key] = ours[key]
