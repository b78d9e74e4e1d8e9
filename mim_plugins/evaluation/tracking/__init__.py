"""Evaluation of trackers: one pass over every sequence, as LaSOT's toolkit has it."""

from .loop import SequenceTestLoop
from .metric import OnePassMetric
from .pair_iou import PairIoU
from .success import SequenceCurves, sequence_curves

__all__ = [
    "OnePassMetric",
    "PairIoU",
    "SequenceCurves",
    "SequenceTestLoop",
    "sequence_curves",
]
