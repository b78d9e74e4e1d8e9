"""Encoders: what is kept after pre-training."""

from .vit import MIMVisionTransformer

__all__ = ["MIMVisionTransformer"]
