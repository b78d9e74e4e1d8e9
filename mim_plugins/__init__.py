"""Masked-image-modelling pre-training for OpenMMLab; importing it registers all."""

from importlib import import_module
from typing import Any

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
model_index.offer_configs()

__version__ = "0.1.0"

# One call each, see `simple`, which is imported when one of them is asked for.
_CALLS = ("pretrain", "finetune", "probe", "embed", "reconstruct")


def __getattr__(name: str) -> Any:
    """One of the calls."""
    if name not in _CALLS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(".simple", __name__), name)


def __dir__() -> list[str]:
    """All names, the calls included."""
    return sorted({*globals(), *_CALLS})


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
