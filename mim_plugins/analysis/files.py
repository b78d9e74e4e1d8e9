"""An analysis as tables and plots."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .analyze import Analysis, ModelAnalysis

# What a table calls each quantity, and its unit.
QUANTITIES = {
    "distance": "attention distance (pixels)",
    "entropy": "attention entropy (nats)",
    "divergence": "divergence of heads (nats)",
    "token_similarity": "cosine between patch tokens",
    "knn": "k-NN accuracy (%)",
    "linear": "linear probe accuracy (%)",
}
PER_HEAD = ("distance", "entropy", "divergence")


def units(analysis: Analysis) -> dict[str, str]:
    """The quantities with their units, and how they were computed."""
    found = dict(QUANTITIES)
    if analysis.paper_figures:
        found["distance"] = "attention distance (14 per patch, paper figures)"
        found["entropy"] = "attention entropy (nats, paper figures)"
    return found


def block_values(model: ModelAnalysis) -> list[dict[str, Any]]:
    """The quantities of every block: a list of numbers per head, or a number."""
    rows = []
    for index, block in enumerate(model.blocks):
        row: dict[str, Any] = {
            name: getattr(block.heads, name).tolist() for name in PER_HEAD
        }
        row["token_similarity"] = block.token_similarity
        for name in ("knn", "linear"):
            accuracies = getattr(model, name)
            if accuracies is not None:
                row[name] = accuracies[index]
        rows.append(row)
    return rows


def write_tables(analysis: Analysis, folder: Path) -> None:
    """Writes ``analysis.json``, ``heads.csv``, ``blocks.csv`` and ``cka.csv``.

    Args:
        analysis: What was found.
        folder: Where to write; made if it is not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    values = {model.name: block_values(model) for model in analysis.models}
    content = dict(
        images=analysis.images,
        paper_figures=analysis.paper_figures,
        quantities=units(analysis),
        blocks=values,
        cka=[
            dict(models=list(pair), values=matrix.tolist())
            for pair, matrix in analysis.cka.items()
        ],
    )
    (folder / "analysis.json").write_text(json.dumps(_plain(content), indent=1))
    heads, blocks = [], []
    for name, rows in values.items():
        for index, row in enumerate(rows, 1):
            single = {key: value for key, value in row.items() if key not in PER_HEAD}
            means = {f"mean_{key}": _mean(row[key]) for key in PER_HEAD}
            blocks.append(dict(model=name, block=index) | means | single)
            for head in range(len(row["distance"])):
                each = {key: row[key][head] for key in PER_HEAD}
                heads.append(dict(model=name, block=index, head=head + 1) | each)
    pairs = [
        dict(model=pair[0], layer=i, other_model=pair[1], other_layer=j, cka=value)
        for pair, matrix in analysis.cka.items()
        for i, row in enumerate(matrix.tolist(), 1)
        for j, value in enumerate(row, 1)
    ]
    for stem, table in (("heads", heads), ("blocks", blocks), ("cka", pairs)):
        with open(folder / f"{stem}.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, list(table[0]))
            writer.writeheader()
            writer.writerows(table)


def write_plots(analysis: Analysis, folder: Path) -> list[Path]:
    """Draws every quantity as PNG and SVG.

    Args:
        analysis: What was found.
        folder: Where to write.

    Returns:
        The files.
    """
    from matplotlib.figure import Figure

    files: list[Path] = []

    def save(figure: Any, stem: str) -> None:
        for ending in ("png", "svg"):
            path = folder / f"{stem}.{ending}"
            figure.savefig(path, dpi=150, bbox_inches="tight")
            files.append(path)

    values = {model.name: block_values(model) for model in analysis.models}
    for quantity, label in units(analysis).items():
        if any(quantity not in row for rows in values.values() for row in rows):
            continue
        figure = Figure(figsize=(6, 4))
        axes = figure.subplots()
        for color, (name, rows) in enumerate(values.items()):
            _draw(axes, f"C{color}", name, [row[quantity] for row in rows])
        axes.set(xlabel="block", ylabel=label)
        axes.grid(alpha=0.3)
        axes.legend()
        save(figure, quantity)
    for (first, second), matrix in analysis.cka.items():
        figure = Figure(figsize=(5, 4))
        axes = figure.subplots()
        image = axes.imshow(matrix, origin="lower", vmin=0, vmax=1, cmap="magma")
        axes.set(xlabel=f"layer of {second}", ylabel=f"layer of {first}")
        figure.colorbar(image, label="linear CKA")
        save(figure, f"cka_{_file_name(first)}_{_file_name(second)}")
    return files


def _draw(axes: Any, color: str, name: str, values: Sequence[Any]) -> None:
    """Draws a quantity over the blocks: heads as dots, their mean as a line."""
    blocks = range(1, len(values) + 1)
    means = [_mean(value) if isinstance(value, list) else value for value in values]
    axes.plot(blocks, means, color=color, label=name)
    for block, value in zip(blocks, values, strict=True):
        if isinstance(value, list):
            axes.plot([block] * len(value), value, ".", color=color, alpha=0.4)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _plain(content: Any) -> Any:
    """Replaces NaN, which JSON does not have, by null."""
    if isinstance(content, dict):
        return {key: _plain(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_plain(value) for value in content]
    return None if isinstance(content, float) and math.isnan(content) else content


def _file_name(name: str) -> str:
    return "".join(char if char.isalnum() or char in "-_." else "_" for char in name)
