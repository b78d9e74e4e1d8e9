"""Drawing what models see and predict, and keeping what is logged."""

from .backend import BestEffortVisBackend
from .reconstruction import pixel_mask, reconstruction_grid, to_pixels, value_range

__all__ = [
    "BestEffortVisBackend",
    "pixel_mask",
    "reconstruction_grid",
    "to_pixels",
    "value_range",
]
