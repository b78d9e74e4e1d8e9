"""Drawing what models see and predict."""

from .reconstruction import pixel_mask, reconstruction_grid, to_pixels, value_range

__all__ = ["pixel_mask", "reconstruction_grid", "to_pixels", "value_range"]
