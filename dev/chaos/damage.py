"""Damaged checkpoints, which are never loaded: the one before is."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

from mim_plugins.checkpoints.files import read_content
from mim_plugins.engine import training_config

from .attempt import Attempt
from .scene import Scene, differing, final_weights

# How often each kind of damage is tried, for every 50 runs.
KINDS = {"bit flipped": 200, "truncated": 100, "half overwritten": 20}

# Of so many trials, one is trained to its end; the others are asked what they take.
_TRAINED = 20


def damaged_checkpoints(scene: Scene, share: float, seed: int) -> Iterator[dict]:
    """Damage the newest checkpoint of a run, and resume.

    Args:
        scene: The images, and a folder.
        share: Part of the trials to make.
        seed: Of what is drawn.

    Yields:
        For each kind of damage, how many were never loaded.
    """
    # The run that is killed at its second checkpoint, and one that was not killed.
    config = scene.config("damaged")
    whole, work_dir = scene.folder / "whole", scene.folder / "damaged"
    with Attempt(config, whole, None) as run:
        run.finish()
    for number, (kind, count) in enumerate(KINDS.items()):
        draw = random.Random(f"{seed} {kind}")
        count = max(1, round(count * share))
        wrong = []
        trained = 0
        for trial in range(count):
            shutil.rmtree(work_dir, ignore_errors=True)
            work_dir.mkdir()
            for name in ("epoch_1.pth", "epoch_2.pth"):
                work_dir.joinpath(name).write_bytes((whole / name).read_bytes())
            path = work_dir / "epoch_2.pth"
            path.write_bytes(_damaged(path, kind, draw))
            if why := _taken(config, work_dir):
                wrong.append(why)
            if trial % _TRAINED == number:
                trained += 1
                wrong += _resumed(config, work_dir, whole)
        report = dict(part="damage", kind=kind, trials=count, trained=trained)
        yield report | dict(ok=not wrong, why="; ".join(wrong[:3]))


def _damaged(path: Path, kind: str, draw: random.Random) -> bytes:
    content = bytearray(path.read_bytes())
    if kind == "bit flipped":
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    elif kind == "truncated":
        del content[draw.randrange(len(content)) :]
    else:
        half = draw.randrange(len(content) // 4, len(content) * 3 // 4)
        other = path.with_name("epoch_1.pth").read_bytes()
        new = draw.choice([other[:half], bytes(half), draw.randbytes(half)])
        content[: len(new)] = new
    return bytes(content)


def _taken(config: Path, work_dir: Path) -> str:
    """What is wrong with what a run would take, when asked in each way."""
    cfg, notes = training_config(config, work_dir=str(work_dir), resume="auto")
    good, bad = work_dir / "epoch_1.pth", work_dir / "epoch_2.pth"
    said = any(f"{bad.name} is skipped: " in note.message for note in notes)
    if cfg.load_from != str(good) or not said:
        return f"--resume takes {cfg.load_from}"
    try:
        training_config(config, work_dir=str(work_dir), resume=str(bad))
        return "--resume takes the damaged file when it is named"
    except ValueError as error:
        if f"--resume {good}" not in str(error):
            return f"--resume FILE does not name the good one: {error}"
    try:
        read_content(bad)
    except ValueError:
        return ""
    return "the damaged file is loaded as weights"


def _resumed(config: Path, work_dir: Path, whole: Path) -> list[str]:
    """What is wrong with a run that goes on from there."""
    with Attempt(config, work_dir, "auto") as run:
        if code := run.finish():
            return [f"exit code {code}: {run.said()[-500:]}"]
        if differing(final_weights(whole), final_weights(work_dir)):
            return ["the final weights differ"]
    return []
