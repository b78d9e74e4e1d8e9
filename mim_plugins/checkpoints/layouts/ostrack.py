"""The layout of OSTrack, which the trackers of the lightweight studies have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from . import Layout
from .key_rules import ENCODER_RULES, KeyRules, has_key, heads_by_width

T = TypeVar("T")

# Branches of the head, official and ours.
_BRANCHES = {"ctr": "score", "offset": "offset", "size": "size"}

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")

# A convolution and its batch norm, four times, and the last convolution.
_HEAD_RULES = [
    rule
    for theirs, ours in _BRANCHES.items()
    for rule in (
        *(
            (f"box_head.conv{k + 1}_{theirs}.{x}", f"head.{ours}.{k}.{x}")
            for k in range(4)
            for x in ("0.{p}", "1.{p}", *(f"1.{x}" for x in _STATISTICS))
        ),
        (f"box_head.conv5_{theirs}.{{p}}", f"head.{ours}.4.{{p}}"),
    )
]

# The class token and the position embedding of pre-training are not used.
RULES = KeyRules(
    [
        *ENCODER_RULES,
        ("pos_embed_z", "backbone.template_pos_embed"),
        ("pos_embed_x", "backbone.search_pos_embed"),
        *_HEAD_RULES,
    ]
)


def convert_official(state: Mapping[str, T]) -> dict[str, T]:
    """Converts a tracker's official state dict to our keys.

    Raises:
        KeyError: If a key is not accounted for.
    """
    return RULES.convert({k.removeprefix("backbone."): x for k, x in state.items()})


def convert_to_official(native: Mapping[str, T]) -> dict[str, T]:
    """The inverse of :func:`convert_official`."""
    return {
        key if key.startswith("box_head.") else f"backbone.{key}": value
        for key, value in RULES.convert(native, to="official").items()
    }


LAYOUT = Layout(
    name="ostrack",
    title="OSTrack's layout",
    marks=(r"(backbone\.)?pos_embed_[xz]$", r"box_head\.conv1_ctr\."),
    dropped=(
        (r"box_head\.(indice|coord_x|coord_y)", "coordinates of the cells, computed"),
    ),
    to_native=lambda state, options: convert_official(state),
    num_heads=heads_by_width,
    writes=lambda native, recorded: has_key(native, r"backbone\.search_pos_embed"),
    to_official=lambda native, *_: convert_to_official(native),
)
