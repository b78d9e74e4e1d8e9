"""Encoders, decoders, targets, losses and algorithms of masked image modelling."""

from .backbones import MIMVisionTransformer
from .data_preprocessor import MIMDataPreprocessor
from .heads import ReconstructionHead
from .masking import PatchMask, RandomPatchMask
from .necks import MIMDecoder
from .selfsup import DeepMIM, MaskedImageModel
from .targets import HybridTarget, PixelTarget

__all__ = [
    "DeepMIM",
    "HybridTarget",
    "MIMDataPreprocessor",
    "MIMDecoder",
    "MIMVisionTransformer",
    "MaskedImageModel",
    "PatchMask",
    "PixelTarget",
    "RandomPatchMask",
    "ReconstructionHead",
]
