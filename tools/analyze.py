"""Look into encoders: CKA, attention, tokens, probes of every block.

    python tools/analyze.py CONFIG CHECKPOINT … --data IMAGES [--train-data IMAGES]

Several checkpoints, and several configs each with its own, are compared. Tables (CSV,
JSON) and plots (PNG, SVG) are written to a folder; docs/analysis.md says what each
quantity means.
"""

from __future__ import annotations

import argparse
import sys


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "models",
        nargs="+",
        metavar="CONFIG CHECKPOINT",
        help="config file, or name of mmpretrain.list_models(), and its checkpoints",
    )
    parser.add_argument("--data", required=True, help="folder of images")
    parser.add_argument(
        "--train-data",
        metavar="DIR",
        help="images in a folder per class, as those of --data: probes every block by "
        "k-NN and a linear classifier",
    )
    parser.add_argument(
        "-o",
        "--out",
        default="analysis",
        metavar="DIR",
        help="where to write (default: analysis)",
    )
    parser.add_argument(
        "--num-images", type=int, default=2000, help="of each folder (default: 2000)"
    )
    parser.add_argument("--batch-size", type=int, default=64, help="(default: 64)")
    parser.add_argument("--workers", type=int, default=2, help="(default: 2)")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of images")
    parser.add_argument(
        "--exact-cka",
        action="store_true",
        help="CKA over all images together instead of unbiased estimates of batches",
    )
    parser.add_argument(
        "--paper-figures",
        action="store_true",
        help="follow MAE-Lite's official code: distances in units of 14 per patch, "
        "equal weights of batches, CKA of all normed tokens",
    )
    parser.add_argument("--device", help="such as cpu or cuda:1 (default: a GPU)")
    parser.add_argument(
        "--debug", action="store_true", help="show the traceback of input errors"
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    args = parse_args(argv)
    # Imported after the arguments, so that --help answers at once.
    from pathlib import Path

    from mmengine.device import get_device

    import mim_plugins  # noqa: F401
    from mim_plugins.analysis.analyze import analyze, load_models
    from mim_plugins.analysis.files import write_plots, write_tables
    from mim_plugins.engine.errors import InputError, explained

    try:
        with explained():
            analysis = analyze(
                load_models(args.models),
                args.data,
                train_data=args.train_data,
                num_images=args.num_images,
                batch_size=args.batch_size,
                workers=args.workers,
                exact_cka=args.exact_cka,
                paper_figures=args.paper_figures,
                seed=args.seed,
                device=args.device or get_device(),
            )
            write_tables(analysis, Path(args.out))
            write_plots(analysis, Path(args.out))
    except InputError as error:
        if args.debug:
            raise
        sys.exit(f"error: {error} (--debug shows where it was raised)")
    print(f"{args.out}: tables and plots of {analysis.images} images")


if __name__ == "__main__":
    main()
