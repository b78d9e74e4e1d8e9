"""The layouts of checkpoints: every ``LAYOUT`` in a file of this folder."""

from .key_rules import KeyRules
from .layout import Layout, Options, candidates, layouts, wrappers
from .native import LAYOUT as NATIVE

__all__ = [
    "NATIVE",
    "KeyRules",
    "Layout",
    "Options",
    "candidates",
    "layouts",
    "wrappers",
]
