"""Masked-image-modelling pre-training for OpenMMLab."""

from . import compat

__version__ = "0.1.0"

__all__ = ["__version__", "compat"]
