"""Write the features of a folder of images to a file.

    python tools/embed.py IMAGES -o feats.npz --model CONFIG --checkpoint FILE …
    torchrun --nproc_per_node 8 tools/embed.py IMAGES -o feats.npz …

The file has the arrays cls, mean and patch as asked for, files, and labels where each
image is in the sub-folder of its class.
"""

from __future__ import annotations

import argparse
import os
import sys

from mmengine.config import DictAction


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", help="folder of images, at any depth")
    parser.add_argument(
        "-o", "--out", required=True, metavar="FILE.npz", help="file to write"
    )
    parser.add_argument(
        "--model",
        metavar="NAME|CONFIG",
        help="a name of mmpretrain.list_models(), or a config file, of pre-training or "
        "classification (default: the config next to the checkpoint)",
    )
    parser.add_argument(
        "--checkpoint",
        metavar="FILE",
        help="weights, ours or official ones (default: those of the model's entry)",
    )
    parser.add_argument(
        "--features",
        nargs="+",
        choices=("cls", "mean", "patch"),
        help="class token, mean of the patch tokens, all patch tokens (default: mean, "
        "and cls where there is a class token)",
    )
    parser.add_argument(
        "--ann-file",
        metavar="FILE",
        help="lines 'path' or 'path class': only these images, in this order",
    )
    parser.add_argument(
        "--skip-unreadable",
        action="store_true",
        help="leave out images that cannot be read; by default the first one ends it",
    )
    parser.add_argument(
        "--batch-size", type=int, default=64, help="for each process (default: 64)"
    )
    parser.add_argument(
        "--workers",
        type=int,
        help="loading processes for each process (default: the cores, four at most)",
    )
    parser.add_argument("--device", help="such as cpu or cuda:1 (default: a GPU)")
    parser.add_argument(
        "--precision",
        choices=("fp32", "bf16", "fp16"),
        help="what to compute in (default: bf16 on GPUs that have it, else fp32)",
    )
    parser.add_argument(
        "--dtype",
        default="float32",
        choices=("float32", "float16"),
        help="what to write (default: float32)",
    )
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=DictAction,
        metavar="KEY=VALUE",
        help="replace values of the config",
    )
    parser.add_argument(
        "--launcher",
        choices=("none", "pytorch", "slurm", "mpi"),
        # torchrun leaves this in the environment.
        default="pytorch" if "TORCHELASTIC_RUN_ID" in os.environ else "none",
        help="who starts the processes (default: torchrun, if it has)",
    )
    parser.add_argument(
        "--force", action="store_true", help="replace FILE.npz if it is there already"
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
    from mim_plugins.engine.errors import InputError, explained
    from mim_plugins.evaluation.embed import embed

    options = vars(args)
    debug = options.pop("debug")
    try:
        with explained():
            shapes = embed(**options)
    except InputError as error:
        if debug:
            raise
        sys.exit(f"error: {error} (--debug shows where it was raised)")
    if os.environ.get("RANK", "0") == "0":
        arrays = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        print(f"{args.out}: {arrays}")


if __name__ == "__main__":
    main()
