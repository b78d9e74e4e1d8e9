"""Judging a pre-trained encoder without fine-tuning it."""

from .features import extract_features
from .knn import knn_predict

__all__ = ["extract_features", "knn_predict"]
