"""How well boxes of pairs are found, for validation during training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS

from ...models.trackers.losses import overlaps, to_corners


@METRICS.register_module()
class PairIoU(BaseMetric):
    """Mean IoU in percent of the boxes that are found in search regions."""

    default_prefix = "pairs"

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Compares the boxes of a batch.

        Args:
            data_batch: Not used.
            data_samples: Dicts of ``pred_box`` and ``box``, (4,).
        """
        predicted, truth = (
            to_corners(torch.stack([x[name].float().cpu() for x in data_samples]))
            for name in ("pred_box", "box")
        )
        self.results += overlaps(predicted, truth.clamp(0, 1))[0].tolist()

    def compute_metrics(self, results: list) -> dict[str, float]:
        """The mean.

        Args:
            results: IoU of every pair.
        """
        return {"IoU": 100 * sum(results) / len(results)}
