"""A disk that is full for a while, loading processes that fail, damaged images."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from .attempt import Attempt, stopped
from .scene import Scene, differing, final_weights, write_images

# Longer, so that there is something left of the run after the fault.
_EPOCHS = {"train_cfg.max_epochs": 12}


def try_faults(folder: Path, seed: int) -> Iterator[dict[str, Any]]:
    """Try each fault once.

    Args:
        folder: An empty folder.
        seed: Of what is drawn.

    Yields:
        What happened.
    """
    draw = random.Random(seed)
    parts: dict[str, Callable[[Path, random.Random], str]] = {
        "full disk": full_disk,
        "worker killed": partial(worker_fails, number=signal.SIGKILL),
        "worker stopped": partial(worker_fails, number=signal.SIGSTOP),
        "0.5 % damaged": partial(damaged_images, damaged=2),
        "2 % damaged": partial(damaged_images, damaged=8),
    }
    for name, call in parts.items():
        place = folder / name.replace(" ", "_").replace("%", "percent")
        place.mkdir()
        why = call(place, draw)
        ok = not why or why.startswith("skipped")
        yield dict(part="faults", fault=name, ok=ok, why=why)


def full_disk(folder: Path, draw: random.Random) -> str:
    """A file system of 60 MB, which is filled while a run saves 10 MB every epoch.

    Args:
        folder: An empty folder.
        draw: Not used.

    Returns:
        What is wrong, or an empty text.
    """
    disk = folder / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=60m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(command, stderr=-3).returncode:
        return "skipped: it takes the right to mount a tmpfs"
    try:
        scene = Scene.make(folder)
        changes = _EPOCHS | {"model.ballast": 10}
        config = scene.config("full", **changes)
        work_dir = disk / "run"
        with Attempt(config, folder / "whole", None) as run:
            run.finish()
        with Attempt(config, work_dir, None) as run:
            run.until((work_dir / "epoch_2.pth").exists)
            with stopped(run.ranks[0]):
                _fill(disk / "others")
            if not run.until(lambda: "cannot be written" in run.said()):
                return "the full disk was not noticed"
            with stopped(run.ranks[0]):
                there = run.checkpoints()
                (disk / "others").unlink()
            code = run.finish()
        if code or not there:
            return f"exit code {code}, checkpoints when it was full: {there}"
        if differing(final_weights(folder / "whole"), final_weights(work_dir)):
            return "the final weights differ"
        return ""
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def _fill(path: Path) -> None:
    with open(path, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


def worker_fails(folder: Path, draw: random.Random, number: signal.Signals) -> str:
    """A loading process gets a signal in the first epoch.

    Args:
        folder: An empty folder.
        draw: Which one.
        number: The signal.

    Returns:
        What is wrong, or an empty text.
    """
    scene = Scene.make(folder)
    changes = _EPOCHS | {
        "train_dataloader.num_workers": 2,
        "train_dataloader.persistent_workers": True,
        "train_dataloader.timeout": 2,
    }
    config = scene.config("workers", **changes)
    for name in ("whole", "failing"):
        with Attempt(config, folder / name, None) as run:
            if name == "failing":
                run.until(lambda: "Epoch(train)" in run.said())
                os.kill(draw.choice(run.workers()), number)
            if code := run.finish():
                return f"exit code {code}: {run.said()[-500:]}"
    if "loading processes are replaced" not in run.said():
        return "no loading process was replaced"
    if differing(final_weights(folder / "whole"), final_weights(folder / "failing")):
        return "the final weights differ"
    return ""


def damaged_images(folder: Path, draw: random.Random, damaged: int) -> str:
    """400 images of which some are damaged, and a named pipe.

    Args:
        folder: An empty folder.
        draw: Which ones.
        damaged: How many; from 4 on they are more than 1 %.

    Returns:
        What is wrong, or an empty text.
    """
    images = write_images(folder / "images", 400)
    chosen = draw.sample(images, damaged)
    for number, path in enumerate(chosen):
        content = path.read_bytes()
        path.write_bytes([b"", content[:60], draw.randbytes(500)][number % 3])
    os.mkfifo(folder / "images" / "pipe.png")
    scene = Scene(folder, folder / "images")
    config = scene.config("images", **{"train_cfg.max_epochs": 1})
    with Attempt(config, folder / "run", None) as run:
        code = run.finish()
    said = run.said()
    if "pipe.png (a named pipe)" not in said:
        return f"the named pipe is not said to be skipped: {said[-1000:]}"
    listed = [path for path in chosen if str(path) in said]
    if damaged < 4:
        if code or listed != chosen:
            return f"exit code {code}, named: {len(listed)} of {damaged}"
        return ""
    last = said.strip().splitlines()[-1]
    stopped_well = "InputError: " in last and 4 < len(listed) <= last.count(".png")
    if code == 0 or not stopped_well:
        return f"exit code {code}, named: {len(listed)} of {damaged}: {last}"
    return ""
