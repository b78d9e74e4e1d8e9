"""Charts as inline SVG, without any library, in the colours of the page around them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

Series = Mapping[str, Sequence[tuple[float, float]]]

WIDTH, HEIGHT = 640, 320
LEFT, RIGHT, TOP, BOTTOM = 64, 12, 12, 44
COLORS = 6
# The most points of a line that are drawn.
_POINTS = 400


def line_chart(title: str, series: Series, xlabel: str, ylabel: str) -> str:
    """Lines over a common axis, with a legend and the last values as a table.

    Args:
        title: What is shown, for screen readers.
        series: Points (x, y) of each line, by its name; values that are not finite are
            left out.
        xlabel: Name of the horizontal axis.
        ylabel: Name of the vertical axis.

    Returns:
        HTML, or nothing if no point is left.
    """
    lines = {name: _drawn(points) for name, points in series.items()}
    lines = {name: points for name, points in lines.items() if points}
    if not lines:
        return ""
    xs = [x for points in lines.values() for x, _ in points]
    ys = [y for points in lines.values() for _, y in points]
    (x_low, x_high), (y_low, y_high) = _range(xs), _range(ys, 0.05)

    def at(x: float, y: float) -> tuple[float, float]:
        across = (x - x_low) / (x_high - x_low)
        up = (y - y_low) / (y_high - y_low)
        return (
            LEFT + across * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM),
        )

    parts = []
    for tick in _ticks(y_low, y_high):
        _, y = at(x_low, tick)
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(_text(LEFT - 6, y + 4, _number(tick), "end"))
    for tick in _ticks(x_low, x_high):
        x, _ = at(tick, y_low)
        parts.append(_text(x, HEIGHT - BOTTOM + 18, _number(tick), "middle"))
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(_text(middle, HEIGHT - 6, xlabel, "middle"))
    legend, rows = [], []
    for index, (name, points) in enumerate(lines.items()):
        kind = f"c{index % COLORS} d{index // COLORS % 3}"
        places = [at(*point) for point in points]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        parts.append(f'<path class="line {kind}" d="M{path}"/>')
        if len(places) <= 40:
            parts += [
                f'<circle class="dot {kind}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>'
                for x, y in places
            ]
        sample = f'<path class="line {kind}" d="M0 6H24"/>'
        legend.append(
            f'<li><svg viewBox="0 0 24 12" width="24" height="12" aria-hidden="true">'
            f"{sample}</svg> {escape(name)}</li>"
        )
        (first_x, first), (last_x, last) = points[0], points[-1]
        rows.append([name, f"{first:.4g} at {first_x:g}", f"{last:.4g} at {last_x:g}"])
    return (
        f"<figure><figcaption>{escape(ylabel)}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(title)}">{"".join(parts)}</svg>'
        f'<ul class="legend">{"".join(legend)}</ul>'
        f"{table(['', 'first', 'last'], rows)}</figure>"
    )


def heat_map(title: str, values: Sequence[Sequence[float | None]]) -> str:
    """A matrix of values from 0 to 1, first row at the bottom, with its numbers.

    Args:
        title: What is shown.
        values: The rows.
    """
    count, columns = len(values), max(map(len, values))
    size = 280 / max(count, columns)
    parts = []
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            level = 0.0 if value is None else min(max(value, 0.0), 1.0)
            place = f'x="{40 + j * size:.1f}" y="{8 + (count - 1 - i) * size:.1f}"'
            known = "not known" if value is None else f"{value:.3f}"
            parts.append(
                f'<rect {place} width="{size:.1f}" height="{size:.1f}" '
                f'class="cell" fill-opacity="{level:.3f}">'
                f"<title>layers {i + 1} and {j + 1}: {known}</title></rect>"
            )
    for index in range(0, count, max(1, count // 6)):
        y = 8 + (count - index - 0.5) * size + 4
        parts.append(_text(34, y, str(index + 1), "end"))
    for index in range(0, columns, max(1, columns // 6)):
        x = 40 + (index + 0.5) * size
        parts.append(_text(x, 8 + count * size + 18, str(index + 1), "middle"))
    rows = [
        [str(i), *("" if x is None else f"{x:.2f}" for x in row)]
        for i, row in enumerate(values, 1)
    ]
    head = ["layer", *(str(j) for j in range(1, columns + 1))]
    return (
        f"<figure><figcaption>{escape(title)}: the stronger the colour, the more "
        f'alike</figcaption><svg viewBox="0 0 330 {count * size + 34:.0f}" '
        f'role="img" '
        f'aria-label="{escape(title)}" class="map">{"".join(parts)}</svg>'
        f"{table(head, rows)}</figure>"
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Numbers behind a chart, folded.

    Args:
        head: Names of the columns.
        rows: Cells.
    """
    columns = "".join(f'<th scope="col">{escape(x)}</th>' for x in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(x)}</td>" for x in row) + "</tr>" for row in rows
    )
    return (
        '<details><summary>Numbers</summary><div class="wide" tabindex="0" '
        f'role="region" aria-label="Numbers"><table><thead><tr>{columns}</tr></thead>'
        f"<tbody>{body}</tbody></table></div></details>"
    )


def _drawn(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that are drawn: means of neighbours where there are very many."""
    finite = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    size = math.ceil(len(finite) / _POINTS)
    if size <= 1:
        return finite
    groups = [finite[start : start + size] for start in range(0, len(finite), size)]
    return [(group[-1][0], sum(y for _, y in group) / len(group)) for group in groups]


def _range(values: Sequence[float], margin: float = 0.0) -> tuple[float, float]:
    low, high = min(values), max(values)
    if low == high:
        spread = abs(low) / 10 or 1.0
        return low - spread, high + spread
    return low - margin * (high - low), high + margin * (high - low)


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers."""
    raw = (high - low) / 5
    unit = 10 ** math.floor(math.log10(raw))
    step = next(unit * x for x in (1, 2, 5, 10) if unit * x >= raw)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [step * index for index in range(first, last + 1)]


def _number(value: float) -> str:
    return f"{value:.4g}"


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
