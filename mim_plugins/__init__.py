"""Masked-image-modelling pre-training for OpenMMLab; importing it registers all."""

from . import compat  # isort: skip  (first: it makes torchvision importable)
from . import (
    analysis,
    checkpoints,
    datasets,
    engine,
    evaluation,
    model_index,
    models,
    visualization,
)

model_index.register()

__version__ = "0.1.0"

__all__ = [
    "__version__",
    "analysis",
    "checkpoints",
    "compat",
    "datasets",
    "engine",
    "evaluation",
    "model_index",
    "models",
    "visualization",
]
