"""Finding the checkpoint to resume from."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ...checkpoints.files.local_files import check_file
from ...checkpoints.files.reading import read_meta, verify
from ..config.settings import Note
from ..hooks.saving import (
    COMPLETE,
    numbered_files,
    read_folder_meta,
    verify_folder,
)

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


def newest_checkpoint(
    cfg: Config,
    without: Collection[Path] = (),
    latest: tuple[float, float] = (math.inf, 0),
    epoch_length: int = 0,
) -> Search:
    """Find the checkpoint that a run can go on from.

    It is that of the latest epoch and, within it, of the latest step, which each
    records, whatever its name and whatever mmengine's ``last_checkpoint`` says. Where a
    run has gone back, those that it has saved since come before all others.

    Args:
        cfg: The config with its ``work_dir``.
        without: Files to leave out.
        latest: Up to which epoch, and step within it, files count; see
            :func:`progress_at`.
        epoch_length: Iterations of an epoch, for files that do not record it.

    Raises:
        OSError: If a file cannot be read for a reason other than its content.
    """
    search, ranked = Search(), []
    for path in training_checkpoints(cfg):
        if path in without:
            continue
        try:
            meta = _meta(path)
            progress = _progress(meta, epoch_length)
            order = int(meta.get("data_order", 0))
            rank = order, progress, path.stat().st_mtime
        except Exception as error:  # a damaged file can fail anywhere
            # A cut one as if the system could not read it: EINVAL.
            problem = path.is_file() and _damage(path)
            if isinstance(error, OSError) and not problem:
                raise
            search.skipped[path] = problem or str(error)
        else:
            if progress <= latest:
                ranked.append((rank, path, meta))
    for _, path, meta in sorted(ranked, key=lambda entry: entry[0], reverse=True):
        if other := _other_run(meta, cfg):
            search.others[path] = other
        elif problem := _damage(path):
            search.skipped[path] = problem
        else:
            search.newest = path
            break
    return search


def progress_at(
    iterations: int, epoch_length: int, accumulated: int
) -> tuple[int, float]:
    """The epoch, and the step within it, that a run has reached.

    Args:
        iterations: How many are complete.
        epoch_length: Iterations of an epoch; 0 in a run that counts no epochs.
        accumulated: Iterations of a step.
    """
    epoch, within = (
        divmod(iterations, epoch_length) if epoch_length else (0, iterations)
    )
    return epoch, within / max(1, accumulated)


def again(cfg: Config, resume: str | None, since: float) -> str | None:
    """What a run goes on from that is started again without a user.

    Args:
        cfg: The config with its ``work_dir``.
        resume: What the user gave for the first attempt; see :func:`apply_resume`.
        since: When that took its first step.

    Returns:
        The newest checkpoint that one of the attempts has saved. Without one, of the
        folder, unless the user has named a file, which is then gone on from as before.
    """
    named = resume or (cfg.get("load_from") if cfg.get("resume") else None)
    if named in (None, "auto"):
        return "auto"
    earlier = [x for x in training_checkpoints(cfg) if x.lstat().st_mtime < since]
    newest = newest_checkpoint(cfg, earlier).newest
    return resume if newest is None else str(newest)


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
    if path.is_dir():
        if path.suffix != ".pth":  # else of processes that each write a part
            check_file(path)
        if not (path / COMPLETE).is_file():
            return  # named on purpose, and of another program
    if not path.exists():
        raise FileNotFoundError(
            f"--resume: the checkpoint {path} does not exist. Give the path of a "
            f".pth file, or 'auto' for the newest one in {cfg.work_dir}."
        )
    if (problem := _damage(path)) is None:
        return
    newest = newest_checkpoint(cfg).newest
    advice = (
        f"The newest complete checkpoint is {newest}: --resume {newest}"
        if newest is not None and newest.resolve() != path.resolve()
        else f"There is no other complete one in {cfg.work_dir}"
    )
    raise ValueError(f"--resume: {problem}. {advice}")


def _progress(meta: Mapping[str, Any], epoch_length: int) -> tuple[int, float]:
    """Epochs, and steps within the next one, that are done.

    With another number of processes a step, and so an epoch, has other iterations.
    """
    batch, run = (meta.get(name) for name in ("global_batch", "run"))
    accumulated = batch.get("accumulated") if isinstance(batch, Mapping) else None
    length = epoch_length
    if isinstance(run, Mapping):
        length = run["epoch_length"] if run.get("unit") == "epoch" else 0
    epoch = int(meta["epoch"])
    return epoch, (int(meta["iter"]) - epoch * length) / max(1, accumulated or 1)


def _meta(path: Path) -> Mapping[str, Any]:
    """What a checkpoint says of its run."""
    if path.is_dir():
        return read_folder_meta(path)
    if not path.is_file():
        raise ValueError(f"{path} is no regular file")
    check_file(path)
    return read_meta(path)


def _damage(path: Path) -> str | None:
    """What is wrong with a file, or a folder, if it is not as it was written."""
    try:
        if path.is_dir():
            verify_folder(path)
        else:
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
