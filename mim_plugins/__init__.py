"""Masked-image-modelling pre-training for OpenMMLab; importing it registers all."""

from . import compat  # isort: skip  (first: it makes torchvision importable)
from . import datasets, engine, models, visualization

__version__ = "0.1.0"

__all__ = ["__version__", "compat", "datasets", "engine", "models", "visualization"]
