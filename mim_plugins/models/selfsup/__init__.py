"""Self-supervised algorithms, one file per paper."""

from .base import MaskedImageModel
from .deepmim import DeepMIM
from .distilled import DistilledMIM
from .localmim import LocalMIM
from .mirl import MIRL

__all__ = ["MIRL", "DeepMIM", "DistilledMIM", "LocalMIM", "MaskedImageModel"]
