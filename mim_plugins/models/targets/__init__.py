"""What removed patches are compared with."""

from .base import ImageSpec, LevelSpec, LevelTarget, LevelTargets, Target
from .hog import HOGTarget
from .hybrid import HybridTarget
from .pixels import PixelTarget
from .teacher import FrozenTeacher

__all__ = [
    "FrozenTeacher",
    "HOGTarget",
    "HybridTarget",
    "ImageSpec",
    "LevelSpec",
    "LevelTarget",
    "LevelTargets",
    "PixelTarget",
    "Target",
]
