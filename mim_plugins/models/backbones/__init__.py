"""Encoders: what is kept after pre-training."""

from .swin import MIMSwinTransformer
from .vit import MIMVisionTransformer

__all__ = ["MIMSwinTransformer", "MIMVisionTransformer"]
