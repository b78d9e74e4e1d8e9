"""Looking inside encoders: similarity of layers, attention, tokens."""

from .attention import AttentionStatistics, HeadStatistics, grid_distances
from .cka import MinibatchCKA, linear_cka
from .feature_hooks import FeatureRankHook, LinearProbeHook

__all__ = [
    "AttentionStatistics",
    "FeatureRankHook",
    "HeadStatistics",
    "LinearProbeHook",
    "MinibatchCKA",
    "grid_distances",
    "linear_cka",
]
