"""Writing a short config file that inherits from one of the package."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..checkpoints.files.atomic import write_atomically

_WIDTH = 88


class Expression(str):
    """Python that is written as it is, such as the name of a variable."""


def write_config(
    path: Path, base: str | Sequence[str], comment: str, values: Mapping[str, Any]
) -> None:
    """Writes a config file.

    Args:
        path: The file; its folder is made.
        base: What it inherits from.
        comment: Lines for the head of the file.
        values: Its variables, in order.
    """
    lines = [f"# {line}".rstrip() for line in comment.splitlines()]
    lines.append(f"_base_ = {_text(base)}\n")
    lines += [f"{name} = {_text(value)}" for name, value in values.items()]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda x: x.write_text("\n".join(lines) + "\n", "utf-8"))


def _text(value: Any, indent: int = 0) -> str:
    """A value as Python, over several lines where it is long."""
    if isinstance(value, Expression):
        return str(value)
    if isinstance(value, Mapping):
        parts = [f"{key}={_text(x, indent + 4)}" for key, x in value.items()]
        opening, closing = "dict(", ")"
    elif isinstance(value, (list, tuple)):
        parts = [_text(x, indent + 4) for x in value]
        opening, closing = "[]" if isinstance(value, list) else "()"
        if isinstance(value, tuple) and len(value) == 1:
            return f"({parts[0]},)"
    else:
        # JSON's text is Python's, in the quotes that the configs have.
        return json.dumps(value) if isinstance(value, str) else repr(value)
    line = f"{opening}{', '.join(parts)}{closing}"
    if "\n" not in line and len(line) + indent + 20 <= _WIDTH:
        return line
    space = " " * (indent + 4)
    inner = "".join(f"{space}{part},\n" for part in parts)
    return f"{opening}\n{inner}{' ' * indent}{closing}"
