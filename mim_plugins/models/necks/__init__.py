"""Decoders of pre-training, and feature pyramids of downstream tasks."""

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
