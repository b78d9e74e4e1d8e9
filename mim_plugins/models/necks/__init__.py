"""Decoders of pre-training."""

from .decoder import MIMDecoder

__all__ = ["MIMDecoder"]
