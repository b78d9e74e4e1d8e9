"""Losses over levels."""

from .reconstruction import ReconstructionHead
from .residual import ResidualPairHead

__all__ = ["ReconstructionHead", "ResidualPairHead"]
