"""Finding the checkpoint to resume from, and checking that the run matches it."""

from __future__ import annotations

import re
from pathlib import Path

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from .settings import GlobalBatch

_NUMBERED = re.compile(r"^(?:epoch|iter)_(\d+)\.pth$")


def newest_checkpoint(work_dir: str | Path) -> Path | None:
    """Return the newest checkpoint of a run, or None if there is none.

    mmengine's ``last_checkpoint`` file decides. If the folder was moved, so that the
    path in it leads nowhere, the file of that name in the folder is taken; without
    ``last_checkpoint`` it is the file with the highest number.

    Args:
        work_dir: The working directory of the run.
    """
    work_dir = Path(work_dir)
    pointer = work_dir / "last_checkpoint"
    if pointer.is_file():
        named = Path(pointer.read_text().strip())
        for candidate in (named, work_dir / named.name):
            if candidate.is_file():
                return candidate
    return next(iter(numbered_checkpoints(work_dir)), None)


def numbered_checkpoints(work_dir: str | Path) -> list[Path]:
    """Return the checkpoints of a run by epoch or iteration, the newest first.

    Args:
        work_dir: The working directory of the run.
    """
    numbered = [
        (int(match.group(1)), path)
        for path in Path(work_dir).glob("*.pth")
        if (match := _NUMBERED.match(path.name))
    ]
    return [path for _, path in sorted(numbered, reverse=True)]


def apply_resume(cfg: Config, resume: str | None) -> str | None:
    """Make a config resume from a checkpoint.

    Args:
        cfg: The config with its ``work_dir``; changed in place.
        resume: None to leave the config as it is, ``auto`` for the newest checkpoint of
            the working directory, or the path of a checkpoint.

    Returns:
        A line for the log, or None if nothing was asked for.

    Raises:
        FileNotFoundError: If the named checkpoint does not exist.
    """
    if resume is None:
        return None
    if resume == "auto":
        newest = newest_checkpoint(cfg.work_dir)
        if newest is None:
            cfg.resume = False
            start = f"from {cfg.load_from}" if cfg.get("load_from") else "from scratch"
            return f"resume: no checkpoint in {cfg.work_dir}, training starts {start}"
        resume = str(newest)
    elif "://" not in resume and not Path(resume).is_file():
        raise FileNotFoundError(
            f"--resume: the checkpoint {resume} does not exist. Give the path of a "
            f".pth file, or 'auto' for the newest one in {cfg.work_dir}."
        )
    cfg.resume = True
    cfg.load_from = resume
    return f"resume: going on from {resume}"


class SameBatchHook(Hook):
    """Saves the global batch in checkpoints, and refuses to resume with another one.

    A checkpoint restores the learning rate and the schedules, which mmengine counts in
    iterations. With another number of images per iteration the schedule would end too
    early or too late, and with other accumulation the learning rate would be that of
    the old batch, whatever the log says; two batches of one size that are accumulated
    differently have other iterations, too.

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
        elif old != new:
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
        return dict(per_iteration=batch.per_iteration, accumulated=batch.accumulated)


def _describe(saved: dict[str, int]) -> str:
    images, accumulated = saved["per_iteration"], saved["accumulated"]
    return (
        f"{images * accumulated} ({images} per iteration x {accumulated} accumulated)"
    )
