"""Decoders of pre-training, and pyramids of what follows it."""

from .decoder import MIMDecoder
from .fusion import FusionDecoder
from .mirl import MIRLDecoder
from .multi_scale import MultiScaleDecoder
from .pooled_norm import PooledNorm
from .simmim import SimMIMDecoder
from .simple_pyramid import SimpleFeaturePyramid
from .vit_pyramid import ViTPyramid

__all__ = [
    "FusionDecoder",
    "MIMDecoder",
    "MIRLDecoder",
    "MultiScaleDecoder",
    "PooledNorm",
    "SimMIMDecoder",
    "SimpleFeaturePyramid",
    "ViTPyramid",
]
