"""What is saved, and where."""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from mmengine._strategy import SingleDeviceStrategy
from mmengine.dist import barrier, is_main_process
from mmengine.runner import Runner
from mmengine.utils import apply_to
from torch import Tensor

from ...checkpoints.files.atomic import sync
from ...checkpoints.files.reading import verify

# The name of a checkpoint within an epoch.
INSIDE_EPOCH = "iter_{}.pth"

# What a sharded checkpoint consists of, written last: without it, it is not complete.
COMPLETE = "complete.json"


def numbered_files(folder: str | Path, template: str | None = None) -> list[Path]:
    """The checkpoints of training runs in a folder, the best ones left out.

    Args:
        folder: The folder.
        template: The hook's ``filename_tmpl``, if it is not mmengine's.
    """
    templates = {"epoch_{}.pth", INSIDE_EPOCH, template or INSIDE_EPOCH}
    names = [re.compile(re.escape(text).replace(r"\{\}", r"\d+")) for text in templates]
    return sorted(
        path
        for path in Path(folder).glob("*")
        if any(name.fullmatch(path.name) for name in names)
    )


def copied(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """A copy on the CPU, which training does not change."""
    moved: dict[int, Any] = {}

    def to_cpu(tensor: Tensor) -> Tensor:
        moved[id(tensor)] = tensor.cpu()
        return tensor

    apply_to(
        checkpoint,
        lambda x: isinstance(x, Tensor) and x.device.type != "cpu",
        to_cpu,
    )
    return copy.deepcopy(checkpoint, moved)


def is_sharded(runner: Runner) -> bool:
    """Whether each process writes a part of a checkpoint."""
    strategy = getattr(runner, "strategy", None)
    if strategy is None:
        return False
    if not isinstance(strategy, SingleDeviceStrategy):
        return True  # DeepSpeed and the like
    return not getattr(strategy, "_is_full_state_dict", lambda: True)()


def remove(path: Path) -> None:
    """Removes a checkpoint, which may be a folder."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_folder(
    runner: Runner, path: Path, meta: dict[str, int], options: dict[str, Any]
) -> None:
    """Has every process write its part, and moves the folder to its name."""
    partial, old = (path.with_name(f"{path.name}{x}.partial") for x in ("", ".old"))
    if is_main_process():
        remove(partial)
    barrier()
    runner.save_checkpoint(str(path.parent), partial.name, meta=meta, **options)
    barrier()
    if is_main_process():
        _complete(partial, meta)
        if path.exists():
            os.replace(path, old)
        os.replace(partial, path)
        remove(old)
    barrier()


def _complete(folder: Path, meta: dict[str, int]) -> None:
    """Syncs the parts of a checkpoint, and lists them."""
    parts = [part for part in sorted(folder.rglob("*")) if part.is_file()]
    for part in parts:
        sync(part)
    sizes = {str(part.relative_to(folder)): part.stat().st_size for part in parts}
    listed = folder / COMPLETE
    listed.write_text(json.dumps(dict(meta=meta, files=sizes)))
    sync(listed)
    sync(folder)


def read_folder_meta(folder: Path) -> dict[str, Any]:
    """How far the run of a sharded checkpoint was.

    Args:
        folder: What :func:`write_folder` has written.

    Raises:
        ValueError: If it was not written to its end.
    """
    return dict(_listed(folder)["meta"])


def verify_folder(folder: Path) -> None:
    """Makes sure that a sharded checkpoint has all its parts, unchanged.

    Args:
        folder: What :func:`write_folder` has written.

    Raises:
        ValueError: If a part is missing or damaged.
    """
    for name, size in _listed(folder)["files"].items():
        part = folder / name
        if not part.is_file():
            raise ValueError(f"{folder} is not complete: {name} is missing")
        if part.stat().st_size != size:
            raise ValueError(
                f"{folder} is damaged: {name} has {part.stat().st_size} bytes, and "
                f"{size} were written"
            )
        if part.suffix in (".pth", ".pt"):
            verify(part)


def _listed(folder: Path) -> dict[str, Any]:
    try:
        listed = json.loads((folder / COMPLETE).read_text())
        if {"meta", "files"} <= listed.keys():
            return listed
    except (OSError, ValueError, AttributeError):
        pass  # not there, cut, or something else
    raise ValueError(
        f"{folder} is not complete: it has no {COMPLETE}, which is written last"
    )
