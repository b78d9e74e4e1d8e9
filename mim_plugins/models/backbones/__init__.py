"""Encoders: what is kept after pre-training."""

from .hiera import Hiera
from .mim_hiera import MIMHiera
from .rel_pos_vit import RelPosVisionTransformer
from .simmim_swin import SimMIMSwin
from .swin import MIMSwinTransformer
from .vit import MIMVisionTransformer
from .vitdet import ViTDet

__all__ = [
    "Hiera",
    "MIMHiera",
    "MIMSwinTransformer",
    "MIMVisionTransformer",
    "RelPosVisionTransformer",
    "SimMIMSwin",
    "ViTDet",
]
