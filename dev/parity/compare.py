"""Compares what we compute with a golden case, array by array."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mim_plugins.models.masking import PatchMask
from mim_plugins.models.targets.cells import cells_by_patch

# Arrays of which we compute, and so compare, the removed patches only.
MASKED_ONLY = {
    "pred": "predictions of visible patches and the class row never reach the loss",
    "target": "targets of visible patches never reach the loss",
    "teacher_pred": "a teacher predicts only the patches that it is asked for",
}


@dataclass(frozen=True)
class MaskedRows:
    """Values at the removed patches of a golden array over all patches.

    Args:
        values: (N, L_mask, scale * scale * D), in the order of ``mask.ids_masked``.
        mask: The mask.
        reason: Why the other rows are not computed.
        scale: Cells per patch and axis.
    """

    values: Tensor
    mask: PatchMask
    reason: str
    scale: int = 1

    def rows_of(self, golden: np.ndarray) -> np.ndarray:
        """The rows of a golden array (N, [1 +] L * scale * scale, D) to compare with.

        Its rows are all cells of the image in raster order.
        """
        rows, cols = (side * self.scale for side in self.mask.grid)
        cells = torch.from_numpy(golden)[:, -rows * cols :].unflatten(1, (rows, cols))
        return self.mask.to("cpu").masked(cells_by_patch(cells, self.scale)).numpy()


@dataclass(frozen=True)
class WithTies:
    """Values of which some cells are the CPU's, see :mod:`.ties`.

    Args:
        values: What to compare.
        count: Number of such cells.
    """

    values: Tensor | MaskedRows
    count: int


@dataclass
class Report:
    """The outcome of one case; :meth:`as_dict` is the JSON line of the tool."""

    case: str
    tol: float
    compared: int = 0
    skipped: list[str] = field(default_factory=list)
    masked_only: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    tied: dict[str, int] = field(default_factory=dict)
    max_abs: float = 0.0
    max_rel: float = 0.0
    worst: str | None = None
    error: str | None = None

    @property
    def ok(self) -> bool:
        """Whether everything was compared and agrees."""
        complete = self.error is None and not self.failed and not self.skipped
        return complete and self.compared > 0

    def add(
        self, name: str, ours: Tensor | MaskedRows | WithTies, golden: np.ndarray
    ) -> None:
        """Compares one array: passes if max|a-b| <= tol * (1e-2 + max|b|)."""
        if isinstance(ours, WithTies):
            if ours.count:
                self.tied[name] = ours.count
            ours = ours.values
        if isinstance(ours, MaskedRows):
            self.masked_only.append(f"{name}: {ours.reason}")
            golden, ours = ours.rows_of(golden), ours.values
        a = ours.detach().cpu().double().numpy()
        b = golden.astype(np.float64)
        if a.shape != b.shape:
            self.failed.append(f"{name}: shape {a.shape}, golden {b.shape}")
            return
        self.compared += 1
        max_abs = float(np.abs(a - b).max(initial=0.0))
        max_rel = max_abs / (1e-2 + float(np.abs(b).max(initial=0.0)))
        # A NaN must fail and be named, so compare the other way round.
        if not max_rel <= self.tol:
            self.failed.append(f"{name}: {max_rel:.3g}")
        if self.worst is None or not max_rel <= self.max_rel:
            self.worst, self.max_rel = name, max_rel
        self.max_abs = max(self.max_abs, max_abs)

    def in_words(self) -> str:
        """The report in a line for people."""
        name = Path(self.case).name
        if self.error:
            return f"{name}: not compared: {self.error}"
        said = f"{name}: {'ok' if self.ok else 'NOT OK'}, {self.compared} arrays"
        said += f", largest relative difference {self.max_rel:.1e} ({self.worst})"
        said += f" where {self.tol:.0e} is allowed"
        for kind, names in (("differ", self.failed), ("skipped", self.skipped)):
            if names:
                more = ", …" if len(names) > 3 else ""
                said += f"; {len(names)} {kind}: {', '.join(names[:3])}{more}"
        return said

    def as_dict(self) -> dict[str, Any]:
        """The report as plain values; ties, failures and errors where there are any."""
        result = {
            "case": self.case,
            "ok": self.ok,
            "compared": self.compared,
            "skipped": self.skipped,
            "masked_only": self.masked_only,
            "max_abs": self.max_abs,
            "max_rel": self.max_rel,
            "worst": self.worst,
        }
        if self.tied:
            result["tied"] = self.tied
        if self.failed:
            result["failed"] = self.failed
        if self.error:
            result["error"] = self.error
        return result
