"""Evaluate a checkpoint on the test set of a config.

python tools/test.py CONFIG CHECKPOINT [--out PREDICTIONS.pkl] [--show-dir DIR] …
"""

from __future__ import annotations

import argparse
import os
import sys

from mmengine.config import DictAction


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("config", help="path of the config file")
    parser.add_argument("checkpoint", help="path of the checkpoint")
    parser.add_argument("--work-dir", help="where the log goes")
    parser.add_argument(
        "--out",
        metavar="FILE.pkl|DIR|FILE.json",
        help="write the predictions of detection or classification to a .pkl file, "
        "predicted maps of segmentation to a folder, or the metrics to a .json file",
    )
    parser.add_argument("--show-dir", help="draw the predictions into this folder")
    parser.add_argument(
        "--tta",
        action="store_true",
        help="average over augmented images: tta_model and tta_pipeline of the config, "
        "else the image and its mirror image",
    )
    parser.add_argument("--amp", action="store_true", help="compute in half precision")
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=DictAction,
        metavar="KEY=VALUE",
        help="replace values of the config; data_root=PATH reaches every data set",
    )
    parser.add_argument(
        "--launcher",
        choices=("none", "pytorch", "slurm", "mpi"),
        default="none",
        help="who starts the processes",
    )
    parser.add_argument(
        "--verbose",
        action="store_true",
        help="show all that the log file gets, environment and config included",
    )
    parser.add_argument(
        "--debug", action="store_true", help="show the traceback of input errors"
    )
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0)
    args = parser.parse_args(argv)
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    return args


def main() -> None:
    """Run the command line."""
    args = parse_args()
    # Imported after the arguments, so that --help answers at once.
    from mim_plugins.engine import InputError, test

    try:
        test(
            args.config,
            args.checkpoint,
            work_dir=args.work_dir,
            amp=args.amp,
            tta=args.tta,
            out=args.out,
            show_dir=args.show_dir,
            cfg_options=args.cfg_options,
            launcher=args.launcher,
            verbose=args.verbose,
        )
    except InputError as error:
        if args.debug:
            raise
        sys.exit(f"error: {error} (--debug shows where it was raised)")


if __name__ == "__main__":
    main()
