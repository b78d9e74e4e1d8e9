"""Encoders, decoders, targets, losses and algorithms of masked image modelling."""

from .backbones import MIMSwinTransformer, MIMVisionTransformer
from .data_preprocessor import MIMDataPreprocessor
from .heads import ReconstructionHead, ResidualPairHead
from .masking import PatchMask, RandomPatchMask, SharedPatchMask
from .necks import MIMDecoder, MIRLDecoder, MultiScaleDecoder, PooledNorm
from .selfsup import MIRL, DeepMIM, LocalMIM, MaskedImageModel
from .targets import (
    CLIPTarget,
    HOGTarget,
    HybridTarget,
    PixelTarget,
    TimmFeatureTarget,
)

__all__ = [
    "CLIPTarget",
    "MIRL",
    "DeepMIM",
    "HOGTarget",
    "HybridTarget",
    "LocalMIM",
    "MIMDataPreprocessor",
    "MIMDecoder",
    "MIRLDecoder",
    "MIMSwinTransformer",
    "MIMVisionTransformer",
    "MaskedImageModel",
    "MultiScaleDecoder",
    "PatchMask",
    "PixelTarget",
    "PooledNorm",
    "RandomPatchMask",
    "ReconstructionHead",
    "ResidualPairHead",
    "SharedPatchMask",
    "TimmFeatureTarget",
]
