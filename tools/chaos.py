#!/usr/bin/env python
"""Kills tiny runs, damages their files, fills their disk, and looks at how they end."""

import argparse
import json
import sys
from pathlib import Path

_PARTS = ("kills", "processes", "damage", "faults")


def main() -> int:
    """Prints a JSON line per run, then a table; returns 0 only if all are ok."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=50, help="runs to kill; default 50")
    parser.add_argument(
        "--processes", type=int, default=1, help="processes of such a run; default 1"
    )
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn")
    parser.add_argument(
        "--ballast",
        type=float,
        default=150.0,
        metavar="MB",
        help="size of the checkpoints during which runs are killed; default 150",
    )
    parser.add_argument(
        "--only", nargs="+", choices=_PARTS, default=_PARTS, help="parts to run"
    )
    args = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `dev`
    import mim_plugins  # noqa: F401
    from dev.chaos import render, run_chaos

    reports = []
    for report in run_chaos(
        args.runs, args.processes, args.seed, args.only, args.ballast
    ):
        print(json.dumps(report), flush=True)
        reports.append(report)
    print(render(reports), file=sys.stderr)
    return 0 if all(report["ok"] for report in reports) else 1


if __name__ == "__main__":
    sys.exit(main())
