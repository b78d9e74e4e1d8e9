"""Finding the checkpoint to resume from, and checking that the run matches it."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from ..checkpoints.files.local_files import check_file
from ..checkpoints.files.reading import read_meta, verify
from .hooks.saving import numbered_files
from .settings import GlobalBatch, Note

_NAMED = 3


@dataclass
class Search:
    """The checkpoints of a folder, as far as a run can go on from them.

    Args:
        newest: The one of the latest iteration that is complete and of this config.
        skipped: Why later ones are not, by file.
        others: Of which config or model further ones are, by file.
    """

    newest: Path | None = None
    skipped: dict[Path, str] = field(default_factory=dict)
    others: dict[Path, str] = field(default_factory=dict)


def training_checkpoints(cfg: Config) -> list[Path]:
    """The checkpoints of training runs in a run's folder, the best ones left out.

    Args:
        cfg: The config with its ``work_dir``.
    """
    options = (cfg.get("default_hooks") or {}).get("checkpoint") or {}
    folder = Path(cfg.work_dir)
    if options.get("out_dir"):
        folder = Path(options["out_dir"], folder.name)
    return numbered_files(folder, options.get("filename_tmpl"))


def newest_checkpoint(cfg: Config) -> Search:
    """Find the checkpoint that a run can go on from.

    It is that of the latest iteration, which each records, whatever its name and
    whatever mmengine's ``last_checkpoint`` says.

    Args:
        cfg: The config with its ``work_dir``.

    Raises:
        OSError: If a file cannot be read for a reason other than its content.
    """
    search, ranked = Search(), []
    for path in training_checkpoints(cfg):
        try:
            meta = _meta(path)
            progress = int(meta["iter"]), int(meta["epoch"]), path.stat().st_mtime
        except OSError:
            raise
        except Exception as error:  # a damaged file can fail anywhere
            search.skipped[path] = path.is_file() and _damage(path) or str(error)
        else:
            ranked.append((progress, path, meta))
    for _, path, meta in sorted(ranked, key=lambda entry: entry[0], reverse=True):
        if other := _other_run(meta, cfg):
            search.others[path] = other
        elif problem := _damage(path):
            search.skipped[path] = problem
        else:
            search.newest = path
            break
    return search


def apply_resume(cfg: Config, resume: str | None) -> list[Note]:
    """Make a config resume from a checkpoint.

    Args:
        cfg: The config with its ``work_dir``; changed in place.
        resume: ``auto`` for the newest checkpoint of the working directory, the path of
            a checkpoint, or None for what the config's ``resume`` and ``load_from``
            say.

    Returns:
        Lines for the log; none if nothing was asked for.

    Raises:
        FileNotFoundError: If the named checkpoint does not exist.
        ValueError: If it is damaged, or the working directory is another run's.
    """
    if resume is None:
        if not cfg.get("resume"):
            return []
        resume = cfg.get("load_from") or "auto"
    if resume == "auto":
        return _resume_newest(cfg)
    if "://" not in resume:
        _check_named(cfg, Path(resume))
    cfg.resume = True
    cfg.load_from = resume
    return [Note(f"resume: going on from {resume}")]


def refuse_earlier_run(cfg: Config) -> None:
    """Refuses to start a new run where another has left its checkpoints.

    Args:
        cfg: The config with its ``work_dir``, after :func:`apply_resume`.

    Raises:
        ValueError: If it would replace them.
    """
    found = training_checkpoints(cfg)
    if found and not cfg.get("resume"):
        raise ValueError(
            f"{found[0].parent} holds checkpoints of an earlier run "
            f"({_listed(found)}), which a new run would replace. Go on from the newest "
            "with --resume, or start the new run in another folder with --work-dir DIR"
        )


def _resume_newest(cfg: Config) -> list[Note]:
    search = newest_checkpoint(cfg)
    notes = [
        Note(f"resume: {path.name} is skipped: {problem}", logging.WARNING)
        for path, problem in {**search.skipped, **search.others}.items()
    ]
    if search.newest is not None:
        cfg.resume = True
        cfg.load_from = str(search.newest)
        return [*notes, Note(f"resume: going on from {search.newest}")]
    if search.others:
        path, other = next(iter(search.others.items()))
        raise ValueError(
            f"--resume: {path} {other}, and there is no checkpoint of this run to go "
            "on from: name its folder with --work-dir DIR. To go on from this file "
            f"nevertheless: --resume {path}"
        )
    cfg.resume = False
    start = f"from {cfg.load_from}" if cfg.get("load_from") else "from scratch"
    whole = "complete checkpoint" if search.skipped else "checkpoint"
    message = f"resume: no {whole} in {cfg.work_dir}, training starts {start}"
    return [*notes, Note(message, logging.WARNING if notes else logging.INFO)]


def _check_named(cfg: Config, path: Path) -> None:
    """Makes sure that a named checkpoint is complete."""
    if path.is_dir() and path.suffix == ".pth":
        return  # of processes that each write a part
    if not path.exists():
        raise FileNotFoundError(
            f"--resume: the checkpoint {path} does not exist. Give the path of a "
            f".pth file, or 'auto' for the newest one in {cfg.work_dir}."
        )
    check_file(path)
    if (problem := _damage(path)) is None:
        return
    newest = newest_checkpoint(cfg).newest
    advice = (
        f"The newest complete checkpoint is {newest}: --resume {newest}"
        if newest is not None and newest.resolve() != path.resolve()
        else f"There is no other complete one in {cfg.work_dir}"
    )
    raise ValueError(f"--resume: {problem}. {advice}")


def _meta(path: Path) -> Mapping[str, Any]:
    """What a checkpoint says of its run; of a folder, its number alone."""
    if path.is_dir():
        number = re.findall(r"\d+", path.stem)[-1]
        return dict(iter=number, epoch=0)
    if not path.is_file():
        raise ValueError(f"{path} is no regular file")
    check_file(path)
    return read_meta(path)


def _damage(path: Path) -> str | None:
    """What is wrong with a file, if it is not as it was written."""
    if path.is_dir():
        return None
    try:
        verify(path)
    except (ValueError, FileNotFoundError) as error:
        return str(error)
    return None


def _other_run(meta: Mapping[str, Any], cfg: Config) -> str | None:
    """Of which config or model a checkpoint is, unless of this one."""
    saved, name = meta.get("config_name"), Path(cfg.filename or "").stem
    if saved and name and saved != name:
        return f"is of the config {saved}, not of {name}"
    settings = (meta.get("run") or {}).get("settings") or {}
    model = cfg.get("model") or {}
    backbone = model.get("backbone") or {}
    for key, value in (
        ("model.type", model.get("type")),
        ("model.backbone.type", backbone.get("type")),
        ("model.backbone.arch", backbone.get("arch")),
    ):
        if key in settings and settings[key] != repr(value):
            return f"is of another model ({key} {settings[key]}, not {value!r})"
    return None


def _listed(paths: list[Path]) -> str:
    names = ", ".join(path.name for path in paths[-_NAMED:])
    more = len(paths) - _NAMED
    return f"{names} and {more} more" if more > 0 else names


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
