"""Encoders: what is kept after pre-training."""

from .hiera import Hiera
from .mim_hiera import MIMHiera
from .swin import MIMSwinTransformer
from .vit import MIMVisionTransformer

__all__ = ["Hiera", "MIMHiera", "MIMSwinTransformer", "MIMVisionTransformer"]
