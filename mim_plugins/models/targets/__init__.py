"""What removed patches are compared with."""

from .base import ImageSpec, LevelSpec, LevelTarget, LevelTargets, Target
from .hybrid import HybridTarget
from .pixels import PixelTarget
from .teacher import FrozenTeacher

__all__ = [
    "FrozenTeacher",
    "HybridTarget",
    "ImageSpec",
    "LevelSpec",
    "LevelTarget",
    "LevelTargets",
    "PixelTarget",
    "Target",
]
