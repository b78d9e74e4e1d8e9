"""Self-supervised algorithms, one file per paper."""

from .base import MaskedImageModel
from .deepmim import DeepMIM

__all__ = ["DeepMIM", "MaskedImageModel"]
