"""Image classifiers that mmpretrain lacks."""

from .distilled import DistilledClassifier
from .image import MIMImageClassifier

__all__ = ["DistilledClassifier", "MIMImageClassifier"]
