"""Parity with the official code, on golden cases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from . import deepmim, localmim, maelite, mirl
from .case import GoldenCase
from .compare import Report

RUNNERS: dict[str, Callable] = {
    "deepmim": deepmim.run,
    "localmim": localmim.run,
    "maelite": maelite.run,
    "mirl": mirl.run,
}


def run_case(folder: str | Path, tol: float = 1e-5, device: str = "cpu") -> Report:
    """Runs one golden case and compares every array of it.

    Args:
        folder: Folder with ``case.json``, ``weights.safetensors``, ``inputs.npz`` and
            ``outputs.npz``; a function has no weights, a case of files to read none of
            the three.
        tol: An array passes if max|a - b| <= tol * (1e-2 + max|b|).
        device: Where to compute. The golden cases were made on a CPU.
    """
    report = Report(case=str(folder), tol=tol)
    try:
        case = GoldenCase.load(folder)
        method = case.config["method"]
        if method not in RUNNERS:
            raise NotImplementedError(f"method {method!r} is not built yet")
        with on_device(device):
            produced = RUNNERS[method](case.to(device))
    except (FileNotFoundError, NotImplementedError, KeyError, ValueError) as error:
        report.error = f"{type(error).__name__}: {error}"
        return report
    for name, golden in case.outputs.items():
        if name in produced:
            report.add(name, produced[name], golden)
        else:
            report.skipped.append(f"{name}: not computed")
    return report


@contextmanager
def on_device(device: str) -> Iterator[None]:
    """Builds and computes on a device, in full float32."""
    if torch.device(device).type == "cpu":
        yield
        return
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    with torch.device(device):
        yield


__all__ = ["GoldenCase", "Report", "run_case"]
