"""What removed patches are compared with."""

from .absent import AbsentTarget, AbsentTeacher
from .base import ImageSpec, LevelSpec, LevelTarget, LevelTargets, Target
from .clip import CLIPTarget
from .features import FeatureTarget
from .hog import HOGTarget
from .hybrid import HybridTarget
from .pixels import PixelTarget
from .teacher import FrozenTeacher
from .timm_features import TimmFeatureTarget

__all__ = [
    "AbsentTarget",
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
