"""Encoders, decoders, targets, losses and algorithms of masked image modelling."""

from .backbones import (
    Hiera,
    MIMHiera,
    MIMSwinTransformer,
    MIMVisionTransformer,
    RelPosVisionTransformer,
    SimMIMSwin,
    ViTDet,
)
from .block_mask import BlockPatchMask
from .classifiers import DistilledClassifier
from .data_preprocessor import MIMDataPreprocessor
from .heads import (
    AttentionDistillation,
    HiddenDistillation,
    ReconstructionHead,
    ResidualPairHead,
    TokenDistillationHead,
)
from .mask_samplers import RandomPatchMask, SharedPatchMask
from .masking import PatchMask
from .necks import (
    FusionDecoder,
    MIMDecoder,
    MIRLDecoder,
    MultiScaleDecoder,
    PooledNorm,
    SimMIMDecoder,
    SimpleFeaturePyramid,
    ViTPyramid,
)
from .selfsup import MIRL, DeepMIM, DistilledMIM, LocalMIM, MaskedImageModel
from .targets import (
    CLIPTarget,
    HOGTarget,
    HybridTarget,
    PixelTarget,
    TimmFeatureTarget,
)
from .trackers import (
    CentreHead,
    OneStreamTracker,
    OneStreamVisionTransformer,
    Tracker,
    TrackingDataPreprocessor,
)

__all__ = [
    "AttentionDistillation",
    "BlockPatchMask",
    "CLIPTarget",
    "CentreHead",
    "MIRL",
    "DeepMIM",
    "DistilledClassifier",
    "DistilledMIM",
    "FusionDecoder",
    "HOGTarget",
    "HiddenDistillation",
    "Hiera",
    "HybridTarget",
    "LocalMIM",
    "MIMDataPreprocessor",
    "MIMDecoder",
    "MIMHiera",
    "MIRLDecoder",
    "MIMSwinTransformer",
    "MIMVisionTransformer",
    "MaskedImageModel",
    "MultiScaleDecoder",
    "OneStreamTracker",
    "OneStreamVisionTransformer",
    "PatchMask",
    "PixelTarget",
    "PooledNorm",
    "RandomPatchMask",
    "ReconstructionHead",
    "RelPosVisionTransformer",
    "ResidualPairHead",
    "SharedPatchMask",
    "SimMIMDecoder",
    "SimMIMSwin",
    "SimpleFeaturePyramid",
    "TimmFeatureTarget",
    "TokenDistillationHead",
    "Tracker",
    "TrackingDataPreprocessor",
    "ViTDet",
    "ViTPyramid",
]
