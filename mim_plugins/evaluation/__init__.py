"""Evaluating a pre-trained encoder without fine-tuning: k-NN, features of images."""

from .feature_extractor import FeatureExtractor
from .knn import extract_features, knn_predict
from .knn_hook import KNNHook

__all__ = ["FeatureExtractor", "KNNHook", "extract_features", "knn_predict"]
