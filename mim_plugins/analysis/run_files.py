"""What a run has left in its work folder, read for its report."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.logging import MMLogger

from ..engine.run_record import FILE_NAME


class RunFiles(NamedTuple):
    """What a run has left.

    Args:
        name: Name of its folder.
        folder: The folder.
        scalars: Values over the steps by name, of all parts of a resumed run; of a step
            that was repeated, the last.
        unit: What hooks count, ``epoch`` or ``iteration``.
        pictures: Reconstructions by what their hook counts, such as ``epoch 10``.
        config: The complete config, or None.
        records: What started it, and went on with it; see
            :func:`~mim_plugins.engine.run_record.record`.
    """

    name: str
    folder: Path
    scalars: dict[str, list[tuple[float, float]]]
    unit: str
    pictures: list[tuple[str, Path]]
    config: str | None
    records: list[dict[str, Any]]


def find_runs(work_dir: Path) -> list[RunFiles]:
    """Reads the run in a folder, or those in the folders right below it.

    Args:
        work_dir: The folder.

    Raises:
        FileNotFoundError: If it does not exist, or there is none.
    """
    if not work_dir.is_dir():
        raise FileNotFoundError(f"there is no folder {work_dir}")
    folders = [work_dir, *sorted(x for x in work_dir.iterdir() if x.is_dir())]
    runs = [folder for folder in folders if _parts(folder)]
    if work_dir in runs:
        runs = [work_dir]
    if not runs:
        raise FileNotFoundError(
            f"{work_dir} has no log of a training (*/vis_data/scalars.json): give the "
            "work_dir of a run, or a folder of such"
        )
    return [_read(folder) for folder in runs]


def _parts(folder: Path) -> list[Path]:
    """The folders of the starts of a run, in order of time."""
    found = folder.glob("*/vis_data/scalars.json")
    return sorted(path.parent.parent for path in found)


def _read(folder: Path) -> RunFiles:
    values: dict[str, dict[float, float]] = {}
    configs, records = sorted(folder.glob("*.py")), []
    unit = "epoch"
    for part in _parts(folder):
        if _add_scalars(part / "vis_data" / "scalars.json", values):
            unit = "iteration"
        if (part / FILE_NAME).is_file():
            records.append(json.loads((part / FILE_NAME).read_text()))
        dumped = part / "vis_data" / "config.py"
        configs += [dumped] if dumped.is_file() else []
    found = []
    for path in (folder / "reconstructions").glob("*.png"):
        if match := re.fullmatch(r"(epoch|iter)_(\d+)", path.stem):
            found.append((int(match[2]), match[1], path))
    return RunFiles(
        name=folder.resolve().name,
        folder=folder,
        scalars={name: sorted(points.items()) for name, points in values.items()},
        unit=unit,
        pictures=[(f"{unit} {step}", path) for step, unit, path in sorted(found)],
        config=configs[-1].read_text(errors="replace") if configs else None,
        records=records,
    )


def _add_scalars(path: Path, values: dict[str, dict[float, float]]) -> bool:
    """Adds the lines of a log, but for one that was cut off when the run was killed.

    Returns:
        Whether hooks count iterations.
    """
    by_iteration = False
    for line in path.read_text(errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            MMLogger.get_current_instance().warning(f"{path}: a line is not complete")
            continue
        # Training counts iterations; what hooks measure, in epochs if they do.
        trained = "loss" in row
        by_iteration |= not trained and "iter" in row
        step = row.get("iter" if trained else "epoch", row.get("step"))
        for name, value in row.items():
            if name in ("epoch", "iter", "step") or not isinstance(value, (int, float)):
                continue
            if isinstance(step, (int, float)):
                values.setdefault(name, {})[step] = float(value)
    return by_iteration


def read_analysis(folder: Path) -> dict[str, Any] | None:
    """What ``tools/analyze.py`` has written, or None.

    Args:
        folder: Where it wrote to.

    Raises:
        ValueError: If the file is of something else.
    """
    path = folder / "analysis.json"
    if not path.is_file():
        return None
    found = json.loads(path.read_text())
    if not isinstance(found, dict) or not {"blocks", "cka", "images"} <= set(found):
        raise ValueError(f"{path} was not written by tools/analyze.py")
    return found
