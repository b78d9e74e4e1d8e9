"""Losses over levels."""

from .distillation import AttentionDistillation, HiddenDistillation
from .reconstruction import ReconstructionHead
from .residual import ResidualPairHead
from .token_distillation import TokenDistillationHead

__all__ = [
    "AttentionDistillation",
    "HiddenDistillation",
    "ReconstructionHead",
    "ResidualPairHead",
    "TokenDistillationHead",
]
