#!/usr/bin/env python
"""Converts checkpoints between official code, mmpretrain, timm and transformers.

    # An official file (DeepMIM's, LocalMIM's, MIRL's, MAE-Lite's, MAE's, Hiera's,
    # timm's, BEiT-style, CLIP's, DINOv2's, I-JEPA's) to ours, whatever it is:
    python tools/convert_checkpoint.py DeepMIM-CLIP-PT.pth deepmim.pth
    python tools/convert_checkpoint.py checkpoint-799.pdparams mirl.pth
    python tools/convert_checkpoint.py swin.pth ours.pth --from localmim

    # Ours to timm, for timm.create_model(..., checkpoint_path='timm.pth'):
    python tools/convert_checkpoint.py work_dirs/x/epoch_300.pth timm.pth --to timm

    # Ours to a folder for transformers.ViTModel.from_pretrained('folder'):
    python tools/convert_checkpoint.py epoch_300.pth folder --to hf --num-heads 12

    # The encoder, or a classifier, with its config, for onnxruntime:
    python tools/convert_checkpoint.py epoch_300.pth encoder.onnx --to onnx
    python tools/convert_checkpoint.py x.pth x.onnx --to onnx --model CONFIG.py

    # For images of another size, and without the decoder:
    python tools/convert_checkpoint.py mae.pth 512.pth --img-size 512 --encoder-only

An official SRC is converted to ours on the way, whatever --to says. The end of DST
decides on the format: .safetensors, .pdparams (arrays, as PaddlePaddle), else
torch.save. Nothing in SRC is executed. A table says what became of every tensor; an
unknown key is an error. Models need no conversion of official files by hand:
init_cfg=dict(type='Pretrained', checkpoint=OFFICIAL_FILE) and load_from do it, too.
"""

from __future__ import annotations

import argparse
import sys


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("src", metavar="SRC", help="the checkpoint to read")
    parser.add_argument("dst", metavar="DST", help="the file (of hf: folder) to write")
    parser.add_argument(
        "--from",
        dest="layout",
        default="auto",
        metavar="LAYOUT",
        help="layout of SRC, a file of mim_plugins/checkpoints/layouts; default: auto, "
        "detected from its keys",
    )
    parser.add_argument(
        "--to",
        default="mmpretrain",
        choices=("mmpretrain", "official", "timm", "hf", "onnx"),
        help="layout of DST; default: mmpretrain, ours",
    )
    parser.add_argument(
        "--model",
        metavar="NAME|CONFIG",
        help="of --to onnx: a name of mmpretrain.list_models(), or a config file "
        "(default: the config next to SRC)",
    )
    parser.add_argument(
        "--encoder-only", action="store_true", help="leave out decoders and heads"
    )
    parser.add_argument(
        "--part",
        default="student",
        choices=("student", "teacher"),
        help="which network of a distillation checkpoint; default: student",
    )
    parser.add_argument(
        "--img-size",
        type=int,
        nargs="+",
        metavar="PIXELS",
        help="resize position embeddings to images of this side, or height and width",
    )
    parser.add_argument(
        "--old-size",
        type=int,
        nargs=2,
        metavar=("H", "W"),
        help="height and width of the images SRC is for, where they are not square "
        "(with --img-size, or --to hf)",
    )
    parser.add_argument(
        "--window-size",
        type=int,
        metavar="TOKENS",
        help="resize a Swin Transformer's tables of relative positions",
    )
    parser.add_argument(
        "--antialias",
        action="store_true",
        help="average when resizing to smaller grids, as DINOv2; default: as MAE",
    )
    parser.add_argument(
        "--num-heads", type=int, help="attention heads; --to hf needs them"
    )
    parser.add_argument(
        "--merge-order",
        default="trained",
        choices=("trained", "official_transfer"),
        help="of pre-trained LocalMIM Swin Transformers: keep what patch merging was "
        "trained to do (default), or what the official fine-tuning makes of it, from "
        "which the published results came",
    )
    parser.add_argument(
        "--key",
        help="of several networks in SRC the one to take, such as student",
    )
    parser.add_argument(
        "--trust",
        action="store_true",
        help="let SRC run code when it is read: only for files of people you trust",
    )
    parser.add_argument(
        "--force", action="store_true", help="replace what is at DST already"
    )
    parser.add_argument(
        "--debug", action="store_true", help="show the traceback of input errors"
    )
    return parser.parse_args(argv)


# What --to onnx takes.
_OF_ONNX = ("src", "dst", "to", "model", "encoder_only", "force", "debug")


def main(argv: list[str] | None = None) -> None:
    """Converts a file and prints the account of its tensors."""
    args = parse_args(argv)
    # Imported here, so that --help answers at once.
    import mim_plugins  # noqa: F401
    from mim_plugins.checkpoints import convert_file

    options = vars(args)
    debug, model = options.pop("debug"), options.pop("model")
    try:
        if args.to == "onnx":
            reports = to_onnx(args, model)
        elif model is not None:
            raise ValueError(
                "--model is of --to onnx, and has no effect here: leave it out"
            )
        else:
            reports = convert_file(**options)
        for report in reports:
            print(report)
    except (ValueError, TypeError, OSError, ImportError) as error:
        if debug:
            raise
        sys.exit(f"error: {error}")
    print(f"written to {args.dst}")


def to_onnx(args: argparse.Namespace, model: str | None) -> list[str]:
    """Exports a model; the sentences that describe the file.

    Raises:
        ValueError: If an option has no effect on it.
    """
    from mim_plugins.evaluation.onnx import export_onnx

    defaults = vars(parse_args(["", ""]))
    unused = [
        name
        for name, value in vars(args).items()
        if name not in _OF_ONNX and value != defaults[name]
    ]
    if unused:
        flag = "from" if unused[0] == "layout" else unused[0].replace("_", "-")
        raise ValueError(
            f"--{flag} has no effect on --to onnx: convert to a checkpoint of ours "
            "with it first, and export that"
        )
    return export_onnx(
        args.src, args.dst, model, encoder_only=args.encoder_only, force=args.force
    )


if __name__ == "__main__":
    main()
