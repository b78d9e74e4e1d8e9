"""Finding the checkpoint to resume from."""

from __future__ import annotations

import re
from pathlib import Path

from mmengine.config import Config

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
