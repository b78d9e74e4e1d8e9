"""What removed patches are compared with."""

from .pixels import PixelTarget

__all__ = ["PixelTarget"]
