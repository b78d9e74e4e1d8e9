"""Parity with the official code, on golden cases."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from . import deepmim, localmim, mirl
from .case import GoldenCase
from .compare import Report

RUNNERS: dict[str, Callable] = {
    "deepmim": deepmim.run,
    "localmim": localmim.run,
    "mirl": mirl.run,
}


def run_case(folder: str | Path, tol: float = 1e-5) -> Report:
    """Runs one golden case and compares every array of it.

    Args:
        folder: Folder with ``case.json``, ``weights.safetensors``, ``inputs.npz`` and
            ``outputs.npz``; a function has no weights, a case of files to read none of
            the three.
        tol: An array passes if max|a - b| <= tol * (1e-2 + max|b|).
    """
    report = Report(case=str(folder), tol=tol)
    try:
        case = GoldenCase.load(folder)
        method = case.config["method"]
        if method not in RUNNERS:
            raise NotImplementedError(f"method {method!r} is not built yet")
        produced = RUNNERS[method](case)
    except (FileNotFoundError, NotImplementedError, KeyError, ValueError) as error:
        report.error = f"{type(error).__name__}: {error}"
        return report
    for name, golden in case.outputs.items():
        if name in produced:
            report.add(name, produced[name], golden)
        else:
            report.skipped.append(f"{name}: not computed")
    return report


__all__ = ["GoldenCase", "Report", "run_case"]
