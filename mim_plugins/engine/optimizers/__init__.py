"""Optimiser wrappers and their constructors."""

from .autocast import AutocastOptimWrapper
from .layer_decay import LayerDecayOptimWrapperConstructor

__all__ = ["AutocastOptimWrapper", "LayerDecayOptimWrapperConstructor"]
