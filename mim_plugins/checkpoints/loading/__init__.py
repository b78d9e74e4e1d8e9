"""Tensors to a model: adapting, the loaded-key check, hook and initialiser."""

from .adapt import state_for
from .hook import SCHEME, ConvertCheckpointHook, convert_when_loaded
from .pretrained import ConvertingPretrainedInit
from .target import Target

__all__ = [
    "SCHEME",
    "ConvertCheckpointHook",
    "ConvertingPretrainedInit",
    "Target",
    "convert_when_loaded",
    "state_for",
]
