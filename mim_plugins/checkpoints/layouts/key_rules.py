"""Reversible rules for keys, and those that all of timm's Vision Transformers share."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

from torch import Tensor

T = TypeVar("T")
Rules = list[tuple[str, str]]

# What the placeholders of a rule stand for: block numbers, and last names of keys.
_PLACEHOLDERS = {
    "i": r"\d+",
    "j": r"\d+",
    "p": r"weight|bias",
    "r": r"relative_position_bias_table|relative_position_index",
}


class KeyRules:
    """Renames keys by templates, in both directions, and accounts for every key.

    Args:
        rules: Pairs of templates, official and ours, such as
            ``('blocks.{i}.norm1.{p}', 'layers.{i}.ln1.{p}')``. ``{i}`` and ``{j}``
            stand for numbers, ``{p}`` for ``weight`` or ``bias``, ``{r}`` for a table
            of relative positions or its index; both templates of a pair hold the same
            ones. The first one that fits is taken.
    """

    def __init__(self, rules: Iterable[tuple[str, str]]) -> None:
        self.rules = list(rules)
        self._to_ours = [(_pattern(a), b) for a, b in self.rules]
        self._to_official = [(_pattern(b), a) for a, b in self.rules]

    def to_ours(self, key: str) -> str | None:
        """Our key for an official one, or None if no rule knows it."""
        return _rename(key, self._to_ours)

    def to_official(self, key: str) -> str | None:
        """The official key for one of ours, or None if no rule knows it."""
        return _rename(key, self._to_official)

    def convert(self, state: Mapping[str, T], to: str = "ours") -> dict[str, T]:
        """Renames every key of a state dict.

        Args:
            state: Tensors, shapes or anything else by key.
            to: ``'ours'`` or ``'official'``.

        Raises:
            KeyError: If a key is not accounted for, naming all such keys.
        """
        rules = self._to_ours if to == "ours" else self._to_official
        names = {key: _rename(key, rules) for key in state}
        unknown = [key for key, name in names.items() if name is None]
        if unknown:
            raise KeyError(
                f"{len(unknown)} keys are not accounted for, so this is another "
                f"layout or another model: {listed(unknown)}"
            )
        return {name: state[key] for key, name in names.items() if name is not None}


def block_rules(official: str, ours: str, parts: Rules | None = None) -> Rules:
    """Rules of blocks, by default timm's ViT's, below prefixes with their number."""
    return [(official + a, ours + b) for a, b in parts or BLOCK_RULES]


BLOCK_RULES: Rules = [
    ("norm1.{p}", "ln1.{p}"),
    ("attn.qkv.{p}", "attn.qkv.{p}"),
    ("attn.proj.{p}", "attn.proj.{p}"),
    ("norm2.{p}", "ln2.{p}"),
    ("mlp.fc1.{p}", "ffn.layers.0.0.{p}"),
    ("mlp.fc2.{p}", "ffn.layers.1.{p}"),
]

# The encoder; `norm` follows the last block, `fc_norm` the pooled patch tokens.
ENCODER_RULES = [
    ("cls_token", "backbone.cls_token"),
    ("pos_embed", "backbone.pos_embed"),
    ("patch_embed.proj.{p}", "backbone.patch_embed.projection.{p}"),
    *block_rules("blocks.{i}.", "backbone.layers.{i}."),
    ("norm.{p}", "backbone.ln1.{p}"),
]

# A fine-tuned classifier, pooled (`fc_norm`) or on the class token (`norm`).
CLASSIFIER_RULES = [
    *ENCODER_RULES,
    ("fc_norm.{p}", "backbone.ln2.{p}"),
    ("head.{p}", "head.fc.{p}"),
]

# Relative positions, as BEiT-style models have them; the indices are buffers.
RELATIVE_POSITION_RULES = [
    ("rel_pos_bias.{r}", "backbone.rel_pos_bias.{r}"),
    *(
        (f"blocks.{{i}}.{name}", f"backbone.layers.{{i}}.{name}")
        for name in ("attn.{r}", "attn.q_bias", "attn.v_bias", "gamma_1", "gamma_2")
    ),
]

# Attention heads of the Vision Transformers of MAE and what is made from it, by width.
# No tensor has another shape at another number of heads.
_OFFICIAL_HEADS = {192: 12, 384: 12, 768: 12, 1024: 16, 1280: 16}


def heads_by_width(state: Mapping[str, Tensor]) -> int | None:
    """Attention heads of an official Vision Transformer of MAE's family."""
    cls = state.get("cls_token")
    return None if cls is None else _OFFICIAL_HEADS.get(cls.shape[-1])


def has_key(keys: Iterable[str], *patterns: str) -> bool:
    """Whether a key starts with one of some patterns."""
    pattern = "|".join(f"(?:{x})" for x in patterns)
    return bool(pattern) and any(re.match(pattern, key) for key in keys)


def numbers(keys: Iterable[str], pattern: str) -> list[int]:
    """The numbers that a pattern finds at the beginning of keys, in order."""
    found = (re.match(pattern, key) for key in keys)
    return sorted({int(match[1]) for match in found if match})


def listed(keys: Iterable[str], most: int = 10) -> str:
    """Keys in order, the first ones of many."""
    keys = sorted(keys)
    return ", ".join(keys[:most]) + (" ..." if len(keys) > most else "")


def _pattern(template: str) -> re.Pattern[str]:
    escaped = re.escape(template).replace(r"\{", "{").replace(r"\}", "}")
    for name, expression in _PLACEHOLDERS.items():
        escaped = escaped.replace(f"{{{name}}}", f"(?P<{name}>{expression})")
    return re.compile(escaped)


def _rename(key: str, rules: list[tuple[re.Pattern[str], str]]) -> str | None:
    for pattern, template in rules:
        if match := pattern.fullmatch(key):
            return template.format(**match.groupdict())
    return None
