"""Checkpoints: files, layouts, and loading them into models.

``files`` turns bytes into tensors and back, ``layouts`` foreign keys into ours and
back, ``loading`` brings tensors into a model.
"""

from . import loading
from .conversion import convert, to_official
from .convert_file import convert_file
from .files import read
from .layouts.key_rules import KeyRules

__all__ = ["KeyRules", "convert", "convert_file", "loading", "read", "to_official"]
