"""Looking inside encoders: similarity of layers, attention, tokens."""

from .attention import AttentionStatistics, HeadStatistics, grid_distances
from .cka import MinibatchCKA, linear_cka

__all__ = [
    "AttentionStatistics",
    "HeadStatistics",
    "MinibatchCKA",
    "grid_distances",
    "linear_cka",
]
