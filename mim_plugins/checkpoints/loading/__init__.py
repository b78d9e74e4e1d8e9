"""Tensors to a model: adapting, the loaded-key check, hook and initialiser."""

from .adapt import state_for
from .hooks import (
    SCHEME,
    ConvertCheckpointHook,
    ConvertingPretrainedInit,
    convert_when_loaded,
)
from .target import Target

__all__ = [
    "SCHEME",
    "ConvertCheckpointHook",
    "ConvertingPretrainedInit",
    "Target",
    "convert_when_loaded",
    "state_for",
]
