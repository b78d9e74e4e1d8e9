#!/usr/bin/env python
"""Pre-trains MAE and DeepMIM on real images and shows what they learnt."""

import argparse
import sys
import time
from importlib.util import find_spec
from pathlib import Path

from mim_plugins.analysis.report import write_report
from mim_plugins.demo import format_table, quiet, run_digits, run_images
from mim_plugins.engine import InputError


def main() -> None:
    """Runs the demo and prints its results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", type=Path, help="pre-train on the images below this folder instead"
    )
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/demo"))
    args = parser.parse_args()
    needed = {"matplotlib": "matplotlib"}
    if args.data is None:
        needed["sklearn"] = "scikit-learn"
    if missing := [name for module, name in needed.items() if not find_spec(module)]:
        sys.exit(
            f"error: the demo needs {' and '.join(missing)}, which the extra [demo] "
            f"has: pip install {' '.join(missing)}"
        )
    log = args.work_dir / "demo.log"
    start = time.perf_counter()
    try:
        run(args.data, args.work_dir, log)
    except InputError as error:
        sys.exit(f"error: {error}")
    print(f"Done in {time.perf_counter() - start:.0f} s. All log lines are in {log}.")
    print("Look at")
    for pattern in ("loss_curves.png", "*/reconstructions/*.png", "*/epoch_*.pth"):
        for path in sorted(args.work_dir.glob(pattern)):
            print(f"  {path}")
    print("and at all of it on one page")
    print(f"  {write_report(args.work_dir)}")


def run(data: Path | None, work_dir: Path, log: Path) -> None:
    """Runs the demo, on digits or on a folder, and prints what it measured."""
    if data is None:
        print("MAE and DeepMIM on 1,437 handwritten digits", flush=True)
        with quiet(log):
            results = run_digits(work_dir)
        print(f"\nAccuracy on 360 held-out digits\n{format_table(results)}\n")
        return
    print(f"DeepMIM on the images below {data}", flush=True)
    with quiet(log):
        losses = run_images(data, work_dir)
    for name, first, last in losses:
        print(f"{name}: {first:.4f} in the first epoch, {last:.4f} in the last")


if __name__ == "__main__":
    main()
