"""The commands ``pretrain``, ``finetune``, ``probe``, ``embed`` and ``reconstruct``.

Their flags are the keywords of the functions of :mod:`mim_plugins`, with dashes.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

_DATA = dict(required=True, metavar="FOLDER", help="images, at any depth")
_CLASSES = dict(
    required=True,
    metavar="FOLDER",
    help="a folder of images per class: train/CLASS and val/CLASS, or CLASS alone",
)
_ENCODER = dict(
    required=True,
    metavar="RUN",
    help="the folder that pretrain has written to, or a checkpoint",
)
_SIZE = dict(
    type=int,
    nargs="+",
    metavar="PIXELS",
    help="side, or height and width, of the model's images",
)
_LENGTH: dict[str, dict[str, Any]] = {
    "epochs": dict(type=int, help="passes over the images (default: by their number)"),
    "batch-size": dict(type=int, help="images of a step (default: by their number)"),
    "workers": dict(type=int, help="loading processes (default: the cores)"),
    "seed": dict(type=int, default=0, help="of all random draws (default: 0)"),
}
_RESUME = dict(action="store_true", help="go on with the run in --out")
_USE: dict[str, dict[str, Any]] = {
    "batch-size": dict(type=int, default=64, help="images at a time (default: 64)"),
    "workers": dict(type=int, help="loading processes (default: the cores, four)"),
    "device": dict(help="such as cpu or cuda:1 (default: a GPU)"),
}

COMMANDS: dict[str, tuple[str, dict[str, dict[str, Any]]]] = {
    "pretrain": (
        "pre-train an encoder on a folder of images",
        {
            "data": _DATA,
            "model": dict(
                default="deepmim_vits",
                help="method and encoder, such as mae_vitt (default: deepmim_vits)",
            ),
            "img-size": _SIZE,
            "patch-size": dict(type=int, help="side of the patches in pixels"),
            "channels": dict(type=int, help="load all as grey (1) or colour (3)"),
            "teacher": dict(metavar="FILE", help="what methods with a teacher need"),
            **_LENGTH,
            "out": dict(default="run", help="the run's folder (default: run)"),
            "resume": _RESUME,
        },
    ),
    "finetune": (
        "fine-tune an encoder on classes of your own",
        {
            "data": _CLASSES,
            "encoder": _ENCODER,
            "img-size": _SIZE,
            **_LENGTH,
            "out": dict(
                default="finetuned", help="the run's folder (default: finetuned)"
            ),
            "resume": _RESUME,
        },
    ),
    "probe": (
        "judge an encoder by k-NN and a linear classifier",
        {
            "data": _CLASSES,
            "encoder": _ENCODER,
            **_USE,
            "seed": dict(type=int, default=0, help="of what is held out (default: 0)"),
        },
    ),
    "embed": (
        "write the features of a folder of images",
        {
            "data": _DATA,
            "encoder": _ENCODER,
            "features": dict(
                nargs="+",
                choices=("cls", "mean", "patch"),
                help="what to write (default: mean, and cls where there is one)",
            ),
            **_USE,
            "out": dict(
                default="features.npz", help="the file (default: features.npz)"
            ),
            "force": dict(action="store_true", help="replace it if it is there"),
        },
    ),
    "reconstruct": (
        "draw what a pre-trained model predicts of masked images",
        {
            "data": dict(required=True, help="an image, or a folder of images"),
            "encoder": _ENCODER,
            "mask-ratio": dict(type=float, help="share of patches to remove"),
            "seed": dict(type=int, default=0, help="of the mask (default: 0)"),
            "device": _USE["device"],
            "out": dict(
                default="reconstructions",
                help="the folder of the pictures (default: reconstructions)",
            ),
        },
    ),
}


def run(command: str, arguments: list[str]) -> int:
    """Runs a command; returns the exit status."""
    text, flags = COMMANDS[command]
    parser = argparse.ArgumentParser(prog=f"mim-plugins {command}", description=text)
    for name, how in flags.items():
        parser.add_argument(f"--{name}", **how)
    parser.add_argument(
        "--debug", action="store_true", help="show the traceback of input errors"
    )
    options = vars(parser.parse_args(arguments))
    debug = options.pop("debug")
    # Imported after the arguments, so that --help answers at once.
    import mim_plugins
    from mim_plugins.engine.errors import InputError

    try:
        result = getattr(mim_plugins, command)(**options)
    except InputError as error:
        if debug:
            raise
        print(f"error: {error} (--debug shows where it was raised)", file=sys.stderr)
        return 1
    if command != "probe":  # which has said it
        print(_shown(result))
    return 0


def _shown(result: Any) -> str:
    """A result in a line, or one a file."""
    if isinstance(result, list):
        return "\n".join(map(str, result))
    if isinstance(result, dict):
        return ", ".join(f"{name} {shape}" for name, shape in result.items())
    if isinstance(result, tuple):
        return f"{result[0]}: {result[1]:.1f} % of the images held out are right"
    return str(result)
