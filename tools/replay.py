"""Run the batch of a step that was skipped, since it was not finite, again.

    python tools/replay.py work_dirs/…/non_finite/iter_1234_rank0.pth

Prints each loss, the norm of the gradient and the first module whose output is not
finite. The file holds the batch, the config and torch's random state; the weights are
next to it.
"""

from __future__ import annotations

import argparse
import sys


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", help="a file in the folder non_finite of a work dir")
    parser.add_argument(
        "--config",
        help="config to build the model from (default: the one in the file)",
    )
    parser.add_argument(
        "--checkpoint",
        metavar="FILE",
        help="weights (default: those that were kept with the file)",
    )
    parser.add_argument(
        "--device",
        help="where to compute, such as cpu (default: a GPU if there is one)",
    )
    parser.add_argument(
        "--debug", action="store_true", help="show the traceback of input errors"
    )
    return parser.parse_args(argv)


def main() -> None:
    """Run the command line."""
    args = parse_args()
    # Imported after the arguments, so that --help answers at once.
    import mim_plugins  # noqa: F401
    from mim_plugins.evaluation.replay import replay

    try:
        for part in replay(args.file, args.config, args.checkpoint, args.device):
            print(part, flush=True)
    except (OSError, ValueError) as error:
        if args.debug:
            raise
        sys.exit(f"error: {error} (--debug shows where it was raised)")


if __name__ == "__main__":
    main()
