"""Track an object through a video, a folder of frames, or from a camera.

    python tools/track.py VIDEO --init x,y,w,h CHECKPOINT
    python tools/track.py FOLDER --select CHECKPOINT --out boxes_of_folder
    python tools/track.py 0 --select --show CHECKPOINT

OUT gets boxes.txt, a line x,y,w,h per frame, and video.mp4 with the boxes drawn.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", help="video, folder of frames, or number of a camera")
    parser.add_argument(
        "checkpoint",
        nargs="?",
        help="weights of a tracker, ours or OSTrack's, or a .onnx file (default: "
        "random weights of --model)",
    )
    box = parser.add_mutually_exclusive_group(required=True)
    box.add_argument(
        "--init", type=_box, metavar="X,Y,W,H", help="the object in the first frame"
    )
    box.add_argument(
        "--select", action="store_true", help="draw the box with the mouse in a window"
    )
    parser.add_argument(
        "--model",
        metavar="NAME|CONFIG",
        help="a name of mmpretrain.list_models(), or a config file (default: the "
        "config next to the checkpoint)",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="where the files go (default: work_dirs/track and the source's name)",
    )
    parser.add_argument("--no-video", action="store_true", help="write the boxes alone")
    parser.add_argument(
        "--show", action="store_true", help="show the frames in a window; q ends it"
    )
    parser.add_argument("--max-frames", type=int, help="stop after as many frames")
    parser.add_argument("--device", help="such as cpu or cuda:1 (default: a GPU)")
    parser.add_argument(
        "--export-onnx",
        metavar="FILE.onnx",
        help="also write the tracker as an ONNX file, which is a checkpoint here, too",
    )
    parser.add_argument(
        "--debug", action="store_true", help="show the traceback of input errors"
    )
    # The checkpoint may come after options.
    return parser.parse_intermixed_args(argv)


def _box(text: str) -> tuple[float, ...]:
    try:
        box = tuple(float(part) for part in text.split(","))
    except ValueError:
        box = ()
    if len(box) != 4:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a box, which is four numbers x,y,w,h such as 10,20,64,48"
        )
    return box


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    args = parse_args(argv)
    # Imported after the arguments, so that --help answers at once.
    from mmengine.device import get_device

    import mim_plugins  # noqa: F401
    from mim_plugins.engine.errors import InputError, explained
    from mim_plugins.evaluation.tracking.video import (
        export,
        load_tracker,
        track_video,
    )

    out = Path(args.out or Path("work_dirs", "track", Path(args.source).stem))
    try:
        with explained():
            device = args.device or get_device()
            network = load_tracker(args.checkpoint, args.model, device)
            if args.export_onnx:
                export(network, args.export_onnx)
            tracked = track_video(
                network,
                args.source,
                args.init,
                out,
                write_video=not args.no_video,
                max_frames=args.max_frames,
                show=args.show,
            )
    except InputError as error:
        if args.debug:
            raise
        sys.exit(f"error: {error} (--debug shows where it was raised)")
    print(f"{out}: {tracked.summary()}")


if __name__ == "__main__":
    main()
