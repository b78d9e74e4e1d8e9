"""Losses over levels."""

from .reconstruction import ReconstructionHead

__all__ = ["ReconstructionHead"]
