"""The metric of one-pass evaluation: LaSOT's three figures."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dist import is_main_process
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from mmengine.registry import METRICS

from ...checkpoints.files import write_atomically
from ...datasets.tracking.box_files import read_flags
from .success import SequenceCurves, sequence_curves

# LaSOT's attributes, in the order of its files.
ATTRIBUTES = (
    "IV", "POC", "DEF", "MB", "CM", "ROT", "BC",
    "VC", "SV", "FOC", "FM", "OV", "LR", "ARC",
)  # fmt: skip


@METRICS.register_module()
class OnePassMetric(BaseMetric):
    """Success AUC, precision at 20 pixels and normalised precision at 0.2, in percent.

    Each is the mean over the sequences, see :func:`.success.sequence_curves`. A
    sequence that failed is left out of the mean; the log names it, and ``failed``
    counts it.

    References:
        - LaSOT: A High-quality Benchmark for Large-scale Single Object Tracking, 2019,
          https://arxiv.org/abs/1809.07845, section 4.1

    Args:
        attributes: Folder with a file ``<name>.txt`` per sequence of 14 flags, LaSOT's
            attributes (``annos/att`` of its toolkit); then there is an AUC of each.
        out_file: Where the figures of every sequence are written (.json).
        **kwargs: As mmengine's ``BaseMetric``.

    Raises:
        FileNotFoundError: If there is no folder ``attributes``.
    """

    default_prefix = "tracking"

    def __init__(
        self,
        attributes: str | None = None,
        out_file: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if attributes is not None and not Path(attributes).is_dir():
            raise FileNotFoundError(f"there is no folder of attributes {attributes}")
        self.attributes = attributes
        self.out_file = out_file

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Compares sequences.

        Args:
            data_batch: Not used.
            data_samples: Dicts of ``name``, ``boxes`` predicted and ``truth`` (n, 4),
                ``absent`` (n,); or of ``name`` and ``error``.
        """
        for sample in data_samples:
            error = sample.get("error")
            curves = None
            if error is None:
                try:
                    curves = sequence_curves(
                        sample["boxes"], sample["truth"], sample.get("absent")
                    )
                except ValueError as caught:
                    error = str(caught)
            self.results.append((sample["name"], curves, error))

    def compute_metrics(self, results: list) -> dict[str, float]:
        """The means, for all sequences and for those with each attribute.

        Args:
            results: Names, curves and errors.

        Raises:
            RuntimeError: If every sequence failed.
        """
        # Exchanged between processes, they have become plain tuples.
        done = {name: SequenceCurves(*curves) for name, curves, _ in results if curves}
        failed = {name: error for name, curves, error in results if curves is None}
        for name, error in failed.items():
            print_log(f"{name} failed: {error}", "current", logging.ERROR)
        if not done:
            raise RuntimeError(
                f"all {len(results)} sequences failed; the first, "
                f"{results[0][0]}: {results[0][2]}"
            )
        if failed:
            print_log(
                f"{len(failed)} of {len(results)} sequences failed; the figures are "
                f"those of the other {len(done)}",
                "current",
                logging.WARNING,
            )
        metrics = _means(list(done.values()))
        metrics |= {"sequences": len(done), "failed": len(failed)}
        if self.attributes is not None:
            metrics |= self._by_attribute(done)
        if self.out_file and is_main_process():
            self._write(done, failed)
        return metrics

    def _by_attribute(self, done: dict[str, SequenceCurves]) -> dict[str, float]:
        having: dict[str, list[SequenceCurves]] = {name: [] for name in ATTRIBUTES}
        for name, curves in done.items():
            flags = read_flags(Path(self.attributes or "", f"{name}.txt"))
            if len(flags) != len(ATTRIBUTES):
                raise ValueError(
                    f"{self.attributes}/{name}.txt has {len(flags)} flags, LaSOT has "
                    f"{len(ATTRIBUTES)} attributes"
                )
            for attribute, flag in zip(ATTRIBUTES, flags, strict=True):
                if flag:
                    having[attribute].append(curves)
        return {f"AUC_{k}": _means(x)["AUC"] for k, x in having.items() if x}

    def _write(self, done: dict[str, SequenceCurves], failed: dict[str, str]) -> None:
        path = Path(self.out_file or "")
        path.parent.mkdir(parents=True, exist_ok=True)
        content: dict[str, Any] = {name: _means([x]) for name, x in done.items()}
        content |= {name: {"error": error} for name, error in failed.items()}
        text = json.dumps(content, indent=1) + "\n"
        write_atomically(path, lambda file: file.write_text(text, encoding="utf-8"))


def _means(curves: Sequence[SequenceCurves]) -> dict[str, float]:
    """The figures in percent."""
    return {
        "AUC": 100 * float(np.mean([x.auc for x in curves])),
        "precision": 100 * float(np.mean([x.precision_20 for x in curves])),
        "norm_precision": 100 * float(np.mean([x.normalised_20 for x in curves])),
    }
