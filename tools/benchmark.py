#!/usr/bin/env python
"""Benchmark ours against other implementations: steps, data pipelines, targets.

    python tools/benchmark.py step CONFIG --vs mmpretrain-mae --vs reference
    python tools/benchmark.py data CONFIG --data-root /path/to/images
    python tools/benchmark.py hog
    python tools/benchmark.py memory configs/mirl/vits54_800e.py

All implementations run in turns in one process (of ``memory``, one after the other in
processes of their own). One JSON object goes to stdout, a table to
stderr.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from pathlib import Path

from mmengine.config import DictAction


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)

    step = commands.add_parser("step", help="training steps on synthetic images")
    step.add_argument("config", help="path of a pre-training config")
    step.add_argument(
        "--vs",
        action="append",
        default=[],
        metavar="mmpretrain-mae|mmpretrain-simmim|reference|CONFIG",
        help="another implementation; can be repeated",
    )
    step.add_argument("--device", help="default: cuda where there is one, else cpu")
    step.add_argument("--batch-size", type=int, help="default: 256 on a GPU, else 8")
    step.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32")
    step.add_argument(
        "--compile",
        action="store_true",
        help="run the config a second time with compiled blocks",
    )
    step.add_argument(
        "--steps", type=int, help="steps in a round; default: 20 on a GPU, else 1"
    )
    step.add_argument("--threads", type=int, help="CPU threads; default on a CPU: 1")

    data = commands.add_parser("data", help="from image files to collated batches")
    data.add_argument("config", help="path of a training config")
    data.add_argument(
        "--data-root",
        help="image folder instead of the config's; without one, and where the "
        "config's does not exist, synthetic images are used",
    )
    data.add_argument(
        "--vs",
        action="append",
        metavar="mmpretrain-mae|CONFIG",
        help="another implementation; can be repeated; default: mmpretrain-mae",
    )
    data.add_argument("--workers", type=int, default=0, help="loading processes")
    data.add_argument("--images", type=int, default=300, help="images in a round")
    data.add_argument("--batch-size", type=int, default=32)

    hog = commands.add_parser("hog", help="HOG targets, ours and mmpretrain's")
    hog.add_argument(
        "--cell-sizes", type=int, nargs="+", default=[4, 8, 16, 32], metavar="PIXELS"
    )
    hog.add_argument("--nbins", type=int, default=9)
    hog.add_argument("--batch-size", type=int, default=64)
    hog.add_argument("--img-size", type=int, default=224, metavar="PIXELS")
    hog.add_argument("--device", default="cpu")
    hog.add_argument("--threads", type=int, help="CPU threads; default on a CPU: 1")

    memory = commands.add_parser(
        "memory", help="a step on the CPU with and without activation checkpointing"
    )
    memory.add_argument("config", help="path of a pre-training config")
    memory.add_argument("--batch-size", type=int, default=2)
    memory.add_argument("--threads", type=int, default=1, help="CPU threads")

    for command in (step, data, memory):
        command.add_argument(
            "--cfg-options", nargs="+", action=DictAction, metavar="KEY=VALUE"
        )
    for command in (step, data, hog):
        command.add_argument(
            "--rounds",
            type=int,
            default=5,
            help="rounds to keep; one more is run first and discarded",
        )
    for command in (step, data, hog, memory):
        command.add_argument(
            "--debug", action="store_true", help="show the traceback of input errors"
        )
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> dict:
    """Run the benchmark the command line asks for and return its report."""
    # Imported here, so that --help answers at once.
    from mmengine.logging import MMLogger

    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `dev`
    import mim_plugins  # noqa: F401
    from dev.benchmarks import render, run_data, run_hog, run_memory, run_step

    MMLogger.get_current_instance().setLevel("WARNING")
    if args.command == "hog":
        names = ("cell_sizes", "nbins", "batch_size", "img_size", "device", "threads")
        report = run_hog(rounds=args.rounds, **{k: getattr(args, k) for k in names})
        print(render(report), file=sys.stderr)
        return report
    if args.command == "memory":
        report = run_memory(
            args.config, args.batch_size, args.threads, args.cfg_options
        )
        print(render(report), file=sys.stderr)
        return report
    common = {"rounds": args.rounds, "cfg_options": args.cfg_options}
    if args.command == "step":
        report = run_step(
            args.config,
            args.vs,
            device=args.device,
            batch_size=args.batch_size,
            dtype=args.dtype,
            compiled=args.compile,
            steps=args.steps,
            threads=args.threads,
            **common,
        )
    else:
        report = run_data(
            args.config,
            args.data_root,
            args.vs or ("mmpretrain-mae",),
            workers=args.workers,
            images=args.images,
            batch_size=args.batch_size,
            **common,
        )
    print(render(report), file=sys.stderr)
    return report


def main(argv: list[str] | None = None) -> None:
    """Print the report as one JSON object."""
    args = parse_args(argv)
    try:
        # Stdout is the report's alone; whatever else is printed goes to stderr.
        with contextlib.redirect_stdout(sys.stderr):
            report = run(args)
    except (ValueError, TypeError, FileNotFoundError) as error:
        if args.debug:
            raise
        sys.exit(f"error: {error} (--debug shows where it was raised)")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
