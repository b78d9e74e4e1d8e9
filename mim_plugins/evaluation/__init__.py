"""Evaluating encoders without fine-tuning, and trackers."""

from .feature_extractor import FeatureExtractor
from .knn import extract_features, knn_predict
from .knn_hook import KNNHook
from .tracking import OnePassMetric, PairIoU, SequenceTestLoop

__all__ = [
    "FeatureExtractor",
    "KNNHook",
    "OnePassMetric",
    "PairIoU",
    "SequenceTestLoop",
    "extract_features",
    "knn_predict",
]
