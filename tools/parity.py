#!/usr/bin/env python
"""Compares our models with what the official code computed, on golden cases."""

import argparse
import json
import sys
from pathlib import Path

from mmengine.logging import MMLogger


def main() -> int:
    """Prints a JSON line per case, and one in words to the standard error.

    Returns:
        0 only if all are ok.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="+", metavar="CASE_DIR")
    parser.add_argument(
        "--tol",
        type=float,
        default=1e-5,
        help="an array passes if max|a-b| <= TOL * (1e-2 + max|b|); default 1e-5",
    )
    parser.add_argument(
        "--device",
        default="cpu",
        help="where to compute, such as cuda; default cpu, as the golden cases",
    )
    args = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `dev`
    import mim_plugins  # noqa: F401
    from dev.parity import run_case

    MMLogger.get_instance("parity", log_level="ERROR")
    ok = True
    for case in args.cases:
        report = run_case(case, args.tol, args.device)
        print(json.dumps(report.as_dict()), flush=True)
        print(report.in_words(), file=sys.stderr, flush=True)
        ok = ok and report.ok
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
