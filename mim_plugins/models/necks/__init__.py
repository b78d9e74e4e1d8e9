"""Decoders of pre-training."""

from .decoder import MIMDecoder
from .mirl import MIRLDecoder
from .multi_scale import MultiScaleDecoder
from .pooled_norm import PooledNorm

__all__ = ["MIMDecoder", "MIRLDecoder", "MultiScaleDecoder", "PooledNorm"]
