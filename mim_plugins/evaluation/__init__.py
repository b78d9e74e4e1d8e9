"""Evaluating a pre-trained encoder without fine-tuning: k-NN, features of images."""

from .knn import extract_features, knn_predict

__all__ = ["extract_features", "knn_predict"]
