"""What became of every tensor of a checkpoint, as a table."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass
class Report:
    """An account of a checkpoint that was converted, or loaded into a model.

    Args:
        source: Where the tensors came from.
        layout: Which layout they were in, in words.
        total: How many there were.
        converted: Keys that were converted or loaded, under their new names.
        resized: Keys whose tensors were resized, and how.
        dropped: Keys that were left out on purpose, and why.
        missing: Keys of the model that nothing was loaded into.
        unexpected: Unknown keys; there must be none.
        notes: Sentences for the user.
        done: What happened to those keys: ``converted`` or ``loaded``.
    """

    source: str
    layout: str
    total: int
    converted: list[str] = field(default_factory=list)
    resized: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    unexpected: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    done: str = "converted"

    def __str__(self) -> str:
        """The table, a line for each outcome and each reason."""
        lines = [f"{self.source}: {self.layout}, {self.total} tensors"]
        lines += _rows(self.done, {key: "" for key in self.converted})
        lines += _rows("resized", self.resized)
        lines += _rows("dropped", self.dropped)
        lines += _rows("missing", self.missing)
        lines += _rows("unexpected", {key: "" for key in self.unexpected})
        return "\n".join(lines + [f"  note: {note}" for note in self.notes])


def _rows(kind: str, keys: Mapping[str, str]) -> list[str]:
    if not keys:
        return [f"  {kind:<10} {0:>4}"]
    reasons: dict[str, list[str]] = {}
    for key, reason in keys.items():
        reasons.setdefault(reason, []).append(key)
    return [
        f"  {kind:<10} {len(some):>4}  {families(some)}" + (f": {why}" if why else "")
        for why, some in reasons.items()
    ]


def families(keys: Iterable[str], most: int = 4) -> str:
    """Keys in few words: those alike but for numbers, or below one name, as one.

    Args:
        keys: The keys.
        most: So many families are named.
    """
    keys = list(keys)
    # Behind a number, and, if there are still many, behind the first name.
    for name_of in (
        lambda key: re.sub(r"\.\d+\..*", ".*", key),
        lambda key: re.sub(r"\..*", ".*", key),
    ):
        found = Counter(name_of(key) for key in keys)
        if len(found) <= most:
            break
    named = [f"{name} ({n})" if n > 1 else name for name, n in found.most_common(most)]
    rest = f", and {len(found) - most} more names" if len(found) > most else ""
    return ", ".join(named) + rest
