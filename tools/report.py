"""Write one page about a run, which needs no network: curves, pictures, layers, origin.

    python tools/report.py WORK_DIR

WORK_DIR is the folder of a run, or one with several. What tools/analyze.py has written
to WORK_DIR/analysis is a part of the page.
"""

from __future__ import annotations

import argparse
import sys


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work_dir", help="folder of a run, or one with several")
    parser.add_argument(
        "-o", "--out", metavar="FILE", help="(default: WORK_DIR/report.html)"
    )
    parser.add_argument(
        "--analysis",
        metavar="DIR",
        help="written by tools/analyze.py (default: WORK_DIR/analysis)",
    )
    parser.add_argument(
        "--debug", action="store_true", help="show the traceback of input errors"
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    args = parse_args(argv)
    # Imported after the arguments, so that --help answers at once.
    from mim_plugins.analysis.report import write_report
    from mim_plugins.engine.errors import InputError, explained

    try:
        with explained():
            path = write_report(args.work_dir, args.out, args.analysis)
    except InputError as error:
        if args.debug:
            raise
        sys.exit(f"error: {error} (--debug shows where it was raised)")
    print(path)


if __name__ == "__main__":
    main()
