"""Masked-image-modelling pre-training for OpenMMLab; importing it registers all."""

from . import compat  # isort: skip  (first: it makes torchvision importable)
from . import (
    checkpoints,
    datasets,
    engine,
    evaluation,
    model_index,
    models,
    visualization,
)

model_index.register()
model_index.offer_configs()

__version__ = "0.1.0"

__all__ = [
    "__version__",
    "checkpoints",
    "compat",
    "datasets",
    "engine",
    "evaluation",
    "model_index",
    "models",
    "visualization",
]
