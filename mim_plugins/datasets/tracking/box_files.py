"""Boxes and flags in text files, as LaSOT has them for annotations and results."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...checkpoints.files import write_atomically

_SEPARATORS = re.compile(r"[,;\s]+")


def read_boxes(path: str | Path) -> np.ndarray:
    """Boxes of a text file, one per line, (n, 4): x, y, width, height.

    Numbers may be separated by commas, tabs or spaces; ``nan`` is one.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it has no line, or a line that is not four numbers.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file of boxes {path}")
    lines = path.read_text(encoding="utf-8", errors="replace").rstrip().splitlines()
    values = [_SEPARATORS.split(line.strip(", \t;")) for line in lines]
    for number, (line, parts) in enumerate(zip(lines, values, strict=True), start=1):
        if len(parts) != 4 or not all(map(_is_number, parts)):
            raise ValueError(
                f"{path}, line {number}: {line[:60]!r} is not a box, which is four "
                "numbers x,y,width,height"
            )
    if not values:
        raise ValueError(f"{path} holds no box")
    return np.array(values, dtype=float)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def write_boxes(path: str | Path, boxes: np.ndarray) -> None:
    """Writes boxes as :func:`read_boxes` reads them, to a thousandth of a pixel.

    Args:
        path: The file; one that is there stays until the new one is complete.
        boxes: (n, 4).
    """
    text = "".join(",".join(f"{x:.3f}" for x in box) + "\n" for box in boxes)
    write_atomically(path, lambda file: file.write_text(text, encoding="utf-8"))


def read_flags(path: str | Path) -> np.ndarray:
    """Flags of a text file, 0 or 1, separated by commas or line breaks, (n,) bool.

    Raises:
        ValueError: If something else is in it.
    """
    text = Path(path).read_text(encoding="utf-8", errors="replace")
    values = [value for value in _SEPARATORS.split(text) if value]
    if others := set(values) - {"0", "1"}:
        raise ValueError(f"{path} holds flags 0 and 1, but also {sorted(others)[0]!r}")
    return np.array(values) == "1"


def read_names(path: str | Path) -> list[str]:
    """Names of a text file, one per line.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no list of sequences {path}")
    lines: Sequence[str] = Path(path).read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip()]
