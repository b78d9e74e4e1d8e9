"""The layouts of checkpoints: every ``LAYOUT`` in a file of this folder."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import Any

from .key_rules import KeyRules
from .layout import Layout, Options

__all__ = ["KeyRules", "Layout", "Options", "candidates", "layouts", "native"]

# Names under which training scripts wrap the state dict, outermost first; Meta's Hiera
# has the last one.
WRAPPERS = ("state_dict", "model", "module", "model_state")


@cache
def layouts() -> dict[str, Layout]:
    """All layouts by name, ours first."""
    modules = (
        import_module(f"{__name__}.{module.name}")
        for module in pkgutil.iter_modules(__path__)
    )
    found = [module.LAYOUT for module in modules if hasattr(module, "LAYOUT")]
    found.sort(key=lambda layout: layout.name != "mmpretrain")
    return {layout.name: layout for layout in found}


def native() -> Layout:
    """Our own layout, that of mmpretrain."""
    return layouts()["mmpretrain"]


@cache
def wrappers() -> tuple[str, ...]:
    """Entries of a file that may hold the state dict, in the order of preference."""
    own = (name for layout in layouts().values() for name in layout.wrappers)
    return (*WRAPPERS, *own)


def candidates(state: Mapping[str, Any], wrapper: str | None = None) -> list[Layout]:
    """The layouts that a state dict may be in: none, one, or several.

    Args:
        state: Tensors by key, without what parallel training put before every key.
        wrapper: Name of the entry of the file that it was in.
    """
    by_wrapper = [x for x in layouts().values() if wrapper in x.wrappers]
    return by_wrapper or [x for x in layouts().values() if x.detects(state)]
