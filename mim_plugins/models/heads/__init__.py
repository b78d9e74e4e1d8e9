"""Losses over levels."""

from .distillation import AttentionDistillation, HiddenDistillation
from .reconstruction import ReconstructionHead
from .residual import ResidualPairHead

__all__ = [
    "AttentionDistillation",
    "HiddenDistillation",
    "ReconstructionHead",
    "ResidualPairHead",
]
