"""Decoders of pre-training."""

from .decoder import MIMDecoder
from .mirl import MIRLDecoder

__all__ = ["MIMDecoder", "MIRLDecoder"]
