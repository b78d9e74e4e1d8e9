"""Targets of the masked patches."""

from .base import ImageSpec, LevelSpec, LevelTarget, LevelTargets, Target
from .clip import CLIPTarget
from .features import FeatureTarget
from .hog import HOGTarget
from .hybrid import HybridTarget
from .pixels import PixelTarget
from .teacher import AbsentTeacher, FrozenTeacher
from .timm_features import TimmFeatureTarget

__all__ = [
    "AbsentTeacher",
    "CLIPTarget",
    "FeatureTarget",
    "FrozenTeacher",
    "HOGTarget",
    "HybridTarget",
    "ImageSpec",
    "LevelSpec",
    "LevelTarget",
    "LevelTargets",
    "PixelTarget",
    "Target",
    "TimmFeatureTarget",
]
