"""What must never lose a run: kills, damaged files, full disks, failing processes.

Runs are forked from a process that has imported everything, so that each attempt takes
a second or two.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .damage import damaged_checkpoints
from .faults import try_faults
from .kills import killed_runs, other_processes
from .report import render
from .scene import Scene

PARTS = ("kills", "processes", "damage", "faults")


def run_chaos(
    runs: int,
    processes: int = 1,
    seed: int = 0,
    parts: Sequence[str] = PARTS,
    ballast: float = 150.0,
) -> Iterator[dict[str, Any]]:
    """Run a campaign.

    Args:
        runs: Runs to kill; of damaged checkpoints, 320 for 50 runs.
        processes: Processes of a run that is killed.
        seed: Of all that is drawn.
        parts: Of :data:`PARTS`.
        ballast: Size of checkpoints in megabytes, where runs are killed.

    Yields:
        What happened in each run. A key ``ok`` says whether it is as it should be.
    """
    with tempfile.TemporaryDirectory(prefix="chaos-") as name:
        for part in parts:
            folder = Path(name, part)
            folder.mkdir()
            if part == "faults":
                yield from try_faults(folder, seed)
                continue
            scene = Scene.make(folder)
            if part == "kills":
                yield from killed_runs(scene, runs, processes, seed, ballast)
            elif part == "processes":
                yield from other_processes(scene, seed)
            else:
                yield from damaged_checkpoints(scene, runs / 50, seed)


__all__ = ["PARTS", "Scene", "render", "run_chaos"]
