"""Line counts of README's code map: ``python -m dev.code_map`` updates them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"

# A row of the table: links, lines, description.
_ROW = re.compile(r"^\| (\[.*?\)) \| ([\d,]+) \| ", re.MULTILINE)
_LINK = re.compile(r"\]\(([^)]+)\)")


def count_lines(path: Path) -> int:
    """Lines of a Python file, or of all of them in a folder."""
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
    return sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files)


def rows(text: str) -> Iterator[tuple[re.Match, int, int]]:
    """Yields each row of the code map, its line count, and the actual one.

    Args:
        text: The README.
    """
    for row in _ROW.finditer(text):
        actual = sum(count_lines(ROOT / path) for path in _LINK.findall(row[1]))
        yield row, int(row[2].replace(",", "")), actual


def main() -> None:
    """Updates the line counts in the README, in tens above 100."""
    text = README.read_text(encoding="utf-8")
    for row, _, actual in reversed(list(rows(text))):
        rounded = round(actual, -1) if actual > 100 else actual
        text = text[: row.start(2)] + f"{rounded:,}" + text[row.end(2) :]
    README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
