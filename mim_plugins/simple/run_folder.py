"""The folder of a run: whether it can be written, and what an earlier call left."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..engine.hooks.saving import numbered_files

# What may differ when a run goes on.
_FREE = ("epochs", "workers")
_MARK = "call: "


def prepare_folder(out: str | os.PathLike, resume: bool) -> Path:
    """Makes the folder of a run, or finds the one to go on with.

    Args:
        out: The folder.
        resume: Whether a run in it is to go on.

    Raises:
        ValueError: If it cannot be written, or has checkpoints of an earlier run
            that is not to go on.
    """
    folder = Path(out).expanduser().absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\\0" * 4096)
            file.flush()
    except OSError as error:
        raise ValueError(
            f"out={str(out)!r} cannot be written ({error.strerror}): give a folder "
            "with write access and free space"
        ) from error
    if (found := numbered_files(folder, None)) and not resume:
        raise ValueError(
            f"{folder} holds checkpoints of an earlier run ({found[-1].name}): go on "
            "with resume=True (--resume), or give another folder as out"
        )
    return folder


def check_space(folder: Path, parameters: int, checkpoints: int) -> None:
    """Checks that the checkpoints of a run fit on the disk.

    Args:
        folder: Where they go.
        parameters: Of the model.
        checkpoints: How many are there at most.

    Raises:
        ValueError: If they do not.
    """
    needed = 12 * parameters * checkpoints  # weights and two moments
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ValueError(
            f"{checkpoints} checkpoints need {needed / 1e9:.1f} GB in {folder}, where "
            f"{free / 1e9:.1f} GB are free: make space, give another folder as out, or "
            "take a smaller model"
        )


def describe_call(name: str, given: Mapping[str, Any]) -> str:
    """The call of a run as a line of its config, for :func:`check_call`."""
    return f"{_MARK}{name} {json.dumps(dict(given), default=str)}"


def check_call(config: Path, name: str, given: Mapping[str, Any]) -> None:
    """Checks that a run that goes on is called as it was begun.

    Args:
        config: The config file that the first call has written.
        name: Name of the function.
        given: The arguments of this call.

    Raises:
        ValueError: Naming the arguments that differ.
    """
    lines = [x[2:] for x in config.read_text("utf-8").splitlines() if _MARK in x]
    if not lines:
        return  # the user's own
    before = json.loads(lines[0].removeprefix(f"{_MARK}{name} "))
    now = json.loads(json.dumps(dict(given), default=str))
    changed = [
        f"{key}={now.get(key)!r} (was {value!r})"
        for key, value in before.items()
        if key not in _FREE and now.get(key) != value
    ]
    if changed:
        raise ValueError(
            f"the run in {config.parent.parent} was begun otherwise, and would not go "
            f"on as begun: {', '.join(changed)}. Leave them as they were, or give "
            "another folder as out"
        )
