"""What became of every tensor of a checkpoint, as a table."""

from __future__ import annotations

import re
from collections import Counter
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
        for kind, keys in (
            (self.done, dict.fromkeys(self.converted, "")),
            ("resized", self.resized),
            ("dropped", self.dropped),
            ("missing", self.missing),
            ("unexpected", dict.fromkeys(self.unexpected, "")),
        ):
            reasons: dict[str, list[str]] = {}
            for key, reason in keys.items():
                reasons.setdefault(reason, []).append(key)
            for why, some in reasons.items():
                line = f"  {kind:<10} {len(some):>4}  {_families(some)}"
                lines.append(line + (f": {why}" if why else ""))
            if not keys:
                lines.append(f"  {kind:<10} {0:>4}")
        return "\n".join(lines + [f"  note: {note}" for note in self.notes])


def _families(keys: list[str], most: int = 4) -> str:
    """Keys in few words: those alike but for numbers, or below one name, as one."""
    # Behind a number, and, if there are still many, behind the first name.
    for rest in (r"\.\d+\..*", r"\..*"):
        found = Counter(re.sub(rest, ".*", key) for key in keys)
        if len(found) <= most:
            break
    named = [f"{name} ({n})" if n > 1 else name for name, n in found.most_common(most)]
    more = f", and {len(found) - most} more names" if len(found) > most else ""
    return ", ".join(named) + more
