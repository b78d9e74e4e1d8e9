"""Draw what a pre-trained model predicts of masked images.

    python tools/reconstruct.py CONFIG CHECKPOINT IMAGE|FOLDER … --out reconstructions

A picture is written for each image: the original, what the encoder sees of it, the
prediction of every level, and the last one with the visible patches pasted in.
docs/analysis.md says how to read them.
"""

from __future__ import annotations

import argparse
import sys

from mmengine.config import DictAction


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "config",
        metavar="CONFIG",
        help="config file of the pre-training, or a name of mmpretrain.list_models()",
    )
    parser.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        help="its weights, ours or official ones, with decoders",
    )
    parser.add_argument(
        "images", nargs="+", metavar="IMAGE|FOLDER", help="images, or folders of them"
    )
    parser.add_argument(
        "-o",
        "--out",
        default="reconstructions",
        metavar="DIR",
        help="where to write NAME_reconstruction.png (default: reconstructions)",
    )
    parser.add_argument(
        "--mask-ratio",
        type=float,
        help="share of patches to remove (default: config's)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the mask, one for all images"
    )
    parser.add_argument(
        "--mask",
        metavar="FILE.png",
        help="a mask drawn by hand, white = removed, on the image or on the part of it "
        "that the model sees",
    )
    parser.add_argument(
        "--gif", action="store_true", help="write an animation over levels, too"
    )
    parser.add_argument(
        "--no-patch-statistics",
        dest="patch_statistics",
        action="store_false",
        help="show predictions of targets with norm_pix as the loss compares them, "
        "without mean and deviation of the true patches",
    )
    parser.add_argument("--device", help="such as cpu or cuda:1 (default: a GPU)")
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=DictAction,
        metavar="KEY=VALUE",
        help="replace values of the config",
    )
    parser.add_argument(
        "--debug", action="store_true", help="show the traceback of input errors"
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    args = parse_args(argv)
    # Imported after the arguments, so that --help answers at once.
    import mim_plugins  # noqa: F401
    from mim_plugins.analysis.reconstruction import reconstruct
    from mim_plugins.engine.errors import InputError, explained

    options = vars(args)
    debug, out = options.pop("debug"), options.pop("out")
    try:
        with explained():
            for found in reconstruct(**options):
                print(*found.write(out), sep="\n", flush=True)
    except InputError as error:
        if debug:
            raise
        sys.exit(f"error: {error} (--debug shows where it was raised)")


if __name__ == "__main__":
    main()
