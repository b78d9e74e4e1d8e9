"""Decoders of pre-training."""

from .decoder import MIMDecoder
from .fusion import FusionDecoder
from .mirl import MIRLDecoder
from .multi_scale import MultiScaleDecoder
from .pooled_norm import PooledNorm
from .simmim import SimMIMDecoder

__all__ = [
    "FusionDecoder",
    "MIMDecoder",
    "MIRLDecoder",
    "MultiScaleDecoder",
    "PooledNorm",
    "SimMIMDecoder",
]
