"""Drawing what models see and predict, and keeping what is logged."""

from .backend import BestEffortVisBackend, MLflowPicturesVisBackend
from .drawings import Components, Drawing, draw_levels, draw_strokes
from .reconstruction import pixel_mask, reconstruction_grid, to_pixels, value_range
from .reconstruction_table import ReconstructionTable

__all__ = [
    "BestEffortVisBackend",
    "Components",
    "Drawing",
    "MLflowPicturesVisBackend",
    "ReconstructionTable",
    "draw_levels",
    "draw_strokes",
    "pixel_mask",
    "reconstruction_grid",
    "to_pixels",
    "value_range",
]
