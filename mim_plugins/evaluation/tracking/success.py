"""Success and precision of one sequence, as LaSOT's toolkit computes them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# Overlaps that a success exceeds; distances that a hit does not: in pixels, and
# relative to the sides of the true box. As fractions, so that each is the nearest
# number to what is meant: overlaps of whole boxes often are exactly one of them.
OVERLAPS = np.arange(21) / 20
PIXELS = np.arange(51.0)
RELATIVE = np.arange(51) / 100


class SequenceCurves(NamedTuple):
    """Shares of the frames of a sequence.

    Args:
        success: With an overlap above each of :data:`OVERLAPS`, (21,).
        precision: With a centre no further off than each of :data:`PIXELS`, (51,).
        normalised: With a centre no further off than each of :data:`RELATIVE` in units
            of the true box, (51,).
    """

    success: np.ndarray
    precision: np.ndarray
    normalised: np.ndarray

    @property
    def auc(self) -> float:
        """Area under the success curve, the mean over its thresholds."""
        return float(self.success.mean())

    @property
    def precision_20(self) -> float:
        """Precision at 20 pixels."""
        return float(self.precision[20])

    @property
    def normalised_20(self) -> float:
        """Normalised precision at 0.2."""
        return float(self.normalised[20])


def sequence_curves(
    predicted: np.ndarray, truth: np.ndarray, absent: np.ndarray | None = None
) -> SequenceCurves:
    """Compares the boxes of a sequence with the true ones.

    As LaSOT's toolkit: the first frame is the true box; a box of no area, or that is no
    number, is replaced by the one before. Frames without object are left out of the
    comparison, but counted, so that they are failures. A frame in which the true box
    has no area, though the object is not said to be absent (three in LaSOT), has an
    overlap and distances of -1: a failure in success, a hit in precision.

    Args:
        predicted: x, y, width, height, (n, 4).
        truth: Likewise.
        absent: Where there is no object, (n,); nowhere by default.

    Raises:
        ValueError: If their lengths differ, or there is no frame with the object.
    """
    predicted, truth = np.array(predicted, dtype=float), np.array(truth, dtype=float)
    frames = len(truth)
    absent = np.zeros(frames, bool) if absent is None else np.asarray(absent, bool)
    if predicted.shape != truth.shape or len(absent) != frames:
        raise ValueError(
            f"there are {len(predicted)} predicted boxes, {frames} true ones and "
            f"{len(absent)} flags; each frame needs one of each"
        )
    if absent.all():
        raise ValueError("the object is absent in every frame: nothing to compare")
    predicted, truth = predicted[~absent], truth[~absent]
    predicted[0] = truth[0]
    predicted = _carried_on(predicted)
    has_area = (truth[:, 2:] > 0).all(axis=1)
    overlap = np.full(len(truth), -1.0)
    overlap[has_area] = overlaps(predicted[has_area], truth[has_area])
    distance, relative = overlap.copy(), overlap.copy()
    apart = _centres(predicted[has_area]) - _centres(truth[has_area])
    distance[has_area] = np.sqrt((apart**2).sum(axis=1))
    apart = apart / truth[has_area, 2:]
    relative[has_area] = np.sqrt((apart**2).sum(axis=1))
    return SequenceCurves(
        (overlap[:, None] > OVERLAPS).sum(axis=0) / frames,
        (distance[:, None] <= PIXELS).sum(axis=0) / frames,
        (relative[:, None] <= RELATIVE).sum(axis=0) / frames,
    )


def overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Overlap of pairs of boxes, (n,).

    A box ends at the pixel x + width - 1, and that pixel belongs to it.
    """
    start = np.maximum(boxes[:, :2], others[:, :2])
    end = np.minimum(boxes[:, :2] + boxes[:, 2:] - 1, others[:, :2] + others[:, 2:] - 1)
    common = np.clip(end - start + 1, 0, None).prod(axis=1)
    return common / (boxes[:, 2:].prod(axis=1) + others[:, 2:].prod(axis=1) - common)


def _centres(boxes: np.ndarray) -> np.ndarray:
    return boxes[:, :2] + (boxes[:, 2:] - 1) / 2


def _carried_on(boxes: np.ndarray) -> np.ndarray:
    """Boxes, with those of no area replaced by the last one before them."""
    valid = np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] > 0).all(axis=1)
    valid[0] = True
    last = np.maximum.accumulate(np.where(valid, np.arange(len(boxes)), 0))
    return boxes[last]
