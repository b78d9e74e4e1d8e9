"""Reversible rules from the keys of one layout to those of another."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")

# What the placeholders of a rule stand for: block numbers, and a parameter's last name.
PLACEHOLDERS = {"i": r"\d+", "j": r"\d+", "p": r"weight|bias"}


class KeyRules:
    """Renames keys by templates, in both directions, and accounts for every key.

    Args:
        rules: Pairs of templates, official and ours, such as
            ``('blocks.{i}.norm1.{p}', 'layers.{i}.ln1.{p}')``. ``{i}`` and ``{j}``
            stand for numbers, ``{p}`` for ``weight`` or ``bias``; both templates of a
            pair hold the same ones.
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
        rename = self.to_ours if to == "ours" else self.to_official
        converted, unknown = {}, []
        for key, value in state.items():
            new = rename(key)
            if new is not None:
                converted[new] = value
            else:
                unknown.append(key)
        if unknown:
            raise KeyError(
                f"{len(unknown)} keys are not accounted for, so this is another "
                f"layout or another model: {listed(unknown)}"
            )
        return converted


def _pattern(template: str) -> re.Pattern[str]:
    escaped = re.escape(template).replace(r"\{", "{").replace(r"\}", "}")
    for name, expression in PLACEHOLDERS.items():
        escaped = escaped.replace(f"{{{name}}}", f"(?P<{name}>{expression})")
    return re.compile(escaped)


def _rename(key: str, rules: list[tuple[re.Pattern[str], str]]) -> str | None:
    for pattern, template in rules:
        match = pattern.fullmatch(key)
        if match:
            return template.format(**match.groupdict())
    return None


def listed(keys: Iterable[str], most: int = 10) -> str:
    """Keys in order, the first ones of many."""
    keys = sorted(keys)
    return ", ".join(keys[:most]) + (" ..." if len(keys) > most else "")
