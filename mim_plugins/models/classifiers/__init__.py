"""Image classifiers that mmpretrain lacks."""

from .distilled import DistilledClassifier

__all__ = ["DistilledClassifier"]
