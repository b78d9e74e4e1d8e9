"""What removed patches are compared with."""

from .base import ImageSpec, LevelSpec, LevelTarget, LevelTargets, Target
from .pixels import PixelTarget
from .teacher import FrozenTeacher

__all__ = [
    "FrozenTeacher",
    "ImageSpec",
    "LevelSpec",
    "LevelTarget",
    "LevelTargets",
    "PixelTarget",
    "Target",
]
