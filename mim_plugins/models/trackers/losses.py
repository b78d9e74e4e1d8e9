"""Losses of the tracker."""

from __future__ import annotations

import torch
from torch import Tensor


def focal_loss(scores: Tensor, target: Tensor) -> Tensor:
    """CornerNet's focal loss of a score map, divided by the number of centres.

    Args:
        scores: In (0, 1), (N, 1, rows, cols).
        target: As of :func:`.centre_target.centre_heatmap`.
    """
    centres = target == 1
    of_centres = (1 - scores) ** 2 * scores.log()
    of_others = (1 - target) ** 4 * scores**2 * (1 - scores).log()
    total = of_centres.where(centres, of_others).sum()
    # A centre at the border may lie outside of the map.
    return -total / centres.sum().clamp_min(1)


def overlaps(boxes: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and generalised IoU of pairs of boxes.

    Args:
        boxes: Corners x1, y1, x2, y2, (N, 4).
        targets: Likewise.

    Returns:
        Two of (N,).
    """
    inner = boxes[:, 2:].minimum(targets[:, 2:]) - boxes[:, :2].maximum(targets[:, :2])
    outer = boxes[:, 2:].maximum(targets[:, 2:]) - boxes[:, :2].minimum(targets[:, :2])
    intersection = inner.clamp_min(0).prod(dim=1)
    areas = [(x[:, 2:] - x[:, :2]).prod(dim=1) for x in (boxes, targets)]
    union = areas[0] + areas[1] - intersection
    hull = outer.prod(dim=1)
    iou = intersection / union
    return iou, iou - (hull - union) / hull


def to_corners(boxes: Tensor, centred: bool = False) -> Tensor:
    """Corners x1, y1, x2, y2 of boxes x, y, width, height, (N, 4).

    Args:
        boxes: (N, 4).
        centred: Whether x and y are the centre's.
    """
    start, size = boxes[:, :2], boxes[:, 2:]
    if centred:
        start = start - size / 2
    return torch.cat([start, start + size], dim=1)
