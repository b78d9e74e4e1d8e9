"""What started a run: command, versions and state of the source, for its report."""

from __future__ import annotations

import json
import platform
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from mmengine.runner import Runner

FILE_NAME = "run.json"

_PACKAGES = {
    "mim_plugins": ("mim_plugins",),
    "mmengine": ("onedl-mmengine", "mmengine"),
    "mmpretrain": ("onedl-mmpretrain", "mmpretrain"),
    "timm": ("timm",),
}


def write_record(runner: Runner) -> None:
    """Writes ``run.json`` next to the log of a run.

    Args:
        runner: The runner of the training process.
    """
    if runner.rank != 0:
        return
    path = Path(runner.log_dir, FILE_NAME)
    try:
        path.write_text(json.dumps(record(runner.world_size), indent=1))
    except OSError as error:  # of a full disk, for which no run should end
        runner.logger.warning(f"{path} could not be written: {error}")


def record(processes: int = 1) -> dict[str, Any]:
    """The command, versions and git state of this process.

    Args:
        processes: How many there are.
    """
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    for name, distributions in _PACKAGES.items():
        for distribution in distributions:
            try:
                versions[name] = version(distribution)
                break
            except PackageNotFoundError:
                continue
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return dict(
        command=shlex.join([Path(sys.executable).name, *sys.argv]),
        folder=str(Path.cwd()),
        processes=processes,
        device=device,
        versions=versions,
        git=git_state(Path(__file__).parent),
    )


def git_state(folder: Path) -> str | None:
    """The commit of a checkout, and whether files differ from it.

    Args:
        folder: A folder of the checkout.

    Returns:
        None if it is none, as that of an installed package.
    """

    def git(*arguments: str) -> str | None:
        command = ["git", "-C", str(folder), *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # A package installed below another project's checkout is not part of that.
    if git("ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    commit = git("rev-parse", "HEAD")
    changed = git("status", "--porcelain", "--untracked-files=no")
    if not commit:
        return None
    return f"{commit}{', with changes that are not committed' if changed else ''}"
