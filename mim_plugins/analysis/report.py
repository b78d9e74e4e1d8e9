"""A run as one page: what ``tools/report.py`` writes."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import cv2

from ..checkpoints.files import write_atomically
from .charts import heat_map, line_chart
from .report_style import SCRIPT, STYLE
from .run_files import RunFiles, find_runs, read_analysis

# The most reconstructions of a run that are embedded, and their largest width.
MAX_PICTURES = 24
MAX_WIDTH = 1600

_LOSS = re.compile(r"(.*_)?loss(_.*)?")
# What hooks measure, one chart for each unit.
_ACCURACY = re.compile(r"(knn|probe)_top1(_block_\d+)?|accuracy/.*")
_RANKS = re.compile(r"(rankme|lidar|alpha_req|feature_std)(_block_\d+)?")

# Quantities of an analysis: what they are called in the file, and in the report.
_OF_BLOCKS = {
    "distance": "Attention distance",
    "entropy": "Attention entropy",
    "divergence": "Divergence of heads",
    "token_similarity": "Token similarity",
}
_PROBES = {"knn": "k-NN", "linear": "linear probe"}


def write_report(
    work_dir: str | Path, out: str | Path | None = None, analysis: str | None = None
) -> Path:
    """Writes ``report.html``, one file that loads nothing from elsewhere.

    Args:
        work_dir: Folder of a run, or of several.
        out: The file; ``report.html`` in ``work_dir`` by default.
        analysis: Folder that ``tools/analyze.py`` has written; ``analysis`` in
            ``work_dir`` by default.

    Returns:
        The file.

    Raises:
        FileNotFoundError: If there is no run, or no analysis where one was named.
        ValueError: If the analysis is something else.
    """
    work_dir = Path(work_dir)
    runs = find_runs(work_dir)
    folder = Path(analysis) if analysis else work_dir / "analysis"
    found = read_analysis(folder)
    if analysis and found is None:
        raise FileNotFoundError(f"{folder} has no analysis.json of tools/analyze.py")
    path = Path(out) if out else work_dir / "report.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    page = _page(work_dir.resolve().name, runs, found, folder)
    write_atomically(path, lambda file: file.write_text(page, encoding="utf-8"))
    return path


def _page(
    title: str, runs: Sequence[RunFiles], analysis: dict[str, Any] | None, folder: Path
) -> str:
    sections = [
        (f"run-{index}", run.name, _run(run, f"run-{index}"))
        for index, run in enumerate(runs)
    ]
    sections.append(("layers", "Layers", _layers(analysis, folder)))
    links = "".join(
        f'<li><a href="#{key}">{escape(name)}</a></li>' for key, name, _ in sections
    )
    body = "".join(
        f'<section aria-labelledby="{key}"><h2 id="{key}">{escape(name)}</h2>{content}'
        "</section>"
        for key, name, content in sections
    )
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        "script-src 'unsafe-inline'"
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{escape(title)}: report</title>'
        f"<style>{STYLE}</style></head><body><header><h1>{escape(title)}</h1>"
        f'<nav aria-label="Sections"><ul>{links}</ul></nav></header>'
        f"<main>{body}</main><script>{SCRIPT}</script></body></html>\n"
    )


def _run(run: RunFiles, key: str) -> str:
    """All that is known of a run but its layers."""
    of_losses = _chosen(run, lambda name: _LOSS.fullmatch(name) is not None)
    if len(of_losses) > 2:
        of_losses.pop("loss", None)  # the sum of the levels would dwarf them
    charts = [
        _chart(
            "Loss per level", of_losses, "iteration", "loss",
            "no loss was logged; a run logs it every `default_hooks.logger.interval` "
            "iterations",
        ),
        _chart(
            "Learning rate", _chosen(run, lambda name: name == "lr"), "iteration",
            "learning rate", "no learning rate was logged",
        ),
        _chart(
            "Throughput", _chosen(run, lambda name: name == "images_per_s"),
            "iteration", "images per second",
            "no throughput was logged: add dict(type='ThroughputHook') to custom_hooks",
        ),
        _chart(
            "k-NN and probes while training",
            _chosen(run, lambda name: _ACCURACY.fullmatch(name) is not None),
            run.unit, "accuracy (%)",
            "no accuracy was measured: add KNNHook or LinearProbeHook to custom_hooks",
        ),
    ]  # fmt: skip
    ranks = _chosen(run, lambda name: _RANKS.fullmatch(name) is not None)
    charts += [
        _chart(name, {name: points}, run.unit, name, "")
        for name, points in ranks.items()
    ]
    if not ranks:
        charts.append(
            _missing("Rank of the features", "add FeatureRankHook to custom_hooks")
        )
    return (
        f'<div class="charts">{"".join(charts)}</div>'
        f"<h3>Reconstructions</h3>{_pictures(run, key)}"
        f"<h3>What was run</h3>{_origin(run)}"
    )


def _chosen(
    run: RunFiles, wanted: Callable[[str], bool]
) -> dict[str, list[tuple[float, float]]]:
    return {name: points for name, points in run.scalars.items() if wanted(name)}


def _chart(
    title: str,
    series: dict[str, list[tuple[float, float]]],
    xlabel: str,
    ylabel: str,
    otherwise: str,
) -> str:
    drawn = line_chart(title, series, xlabel, ylabel)
    return f"<div><h3>{escape(title)}</h3>{drawn}</div>" if drawn else _missing(
        title, otherwise
    )  # fmt: skip


def _missing(title: str, reason: str) -> str:
    return (
        f'<div><h3>{escape(title)}</h3><p class="missing">Not there: '
        f"{escape(reason or 'no finite value was logged')}.</p></div>"
    )


def _pictures(run: RunFiles, key: str) -> str:
    """Reconstructions with a slider over the epochs."""
    chosen = run.pictures
    if len(chosen) > MAX_PICTURES:
        last = len(chosen) - 1
        places = [round(i * last / (MAX_PICTURES - 1)) for i in range(MAX_PICTURES)]
        chosen = [chosen[place] for place in places]
    read = [(step, uri) for step, path in chosen if (uri := data_uri(path))]
    if not read:
        return (
            '<p class="missing">Not there: no picture was drawn. Add '
            "dict(type='ReconstructionHook') to custom_hooks, or draw one of a "
            "checkpoint with tools/reconstruct.py.</p>"
        )
    figures = "".join(
        f'<figure class="step" data-step="{step}"><figcaption>After {step}</figcaption>'
        f'<img src="{uri}" alt="Original, masked image, prediction of every level and '
        f'pasted prediction of a few images, after {step}"></figure>'
        for step, uri in read
    )
    left_out = ""
    if len(read) < len(run.pictures):
        left_out = (
            f"<p>{len(read)} of {len(run.pictures)} pictures, evenly spread; all are "
            f"in <code>{escape(str(run.folder / 'reconstructions'))}</code>.</p>"
        )
    last = len(read) - 1
    return (
        f'<div class="steps"><label for="{key}-step">Step of training: '
        f'<output for="{key}-step">{read[-1][0]}</output></label>'
        f'<input type="range" id="{key}-step" min="0" max="{last}" value="{last}">'
        f"{figures}{left_out}</div>"
    )


def data_uri(path: Path) -> str | None:
    """A picture in the text of a page.

    Args:
        path: A PNG file.

    Returns:
        None if it cannot be read.
    """
    picture = cv2.imread(str(path))
    if picture is None:
        return None
    height, width = picture.shape[:2]
    if width > MAX_WIDTH:
        size = (MAX_WIDTH, max(1, height * MAX_WIDTH // width))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 90])
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}"


def _origin(run: RunFiles) -> str:
    """Command, versions, git state and config."""
    parts = []
    if not run.records:
        parts.append(
            '<p class="missing">Not there: command, versions and git state, which '
            "tools/train.py records in run.json; this run was started otherwise.</p>"
        )
    for index, record in enumerate(run.records):
        versions = record.get("versions") or {}
        entries = {
            "Command" if not index else "Resumed with": record.get("command"),
            "In": record.get("folder"),
            "Processes": record.get("processes"),
            "Device": record.get("device"),
            "Versions": ", ".join(f"{x} {versions[x]}" for x in versions),
            "Git": record.get("git") or "no checkout, an installed package",
        }
        items = "".join(
            f"<dt>{name}</dt><dd><code>{escape(str(value))}</code></dd>"
            for name, value in entries.items()
        )
        parts.append(f"<dl>{items}</dl>")
    if run.config is None:
        parts.append('<p class="missing">Not there: the config.</p>')
    else:
        parts.append(
            "<details><summary>The complete config</summary>"
            f'<pre tabindex="0">{escape(run.config)}</pre></details>'
        )
    return "".join(parts)


def _layers(analysis: dict[str, Any] | None, folder: Path) -> str:
    """Attention, tokens, probes and CKA of checkpoints."""
    command = f"tools/analyze.py CONFIG CHECKPOINT … --data IMAGES -o {folder}"
    if analysis is None:
        return (
            '<p class="missing">Not there: attention distance and entropy, CKA and the '
            "accuracy of probes of every layer. Write them with <code>python "
            f"{escape(command)}</code> (and <code>--train-data</code> for the probes), "
            "then write this report again.</p>"
        )
    quantities = analysis.get("quantities") or {}
    models: dict[str, list[dict[str, Any]]] = analysis["blocks"]
    charts = []
    for name, title in _OF_BLOCKS.items():
        series = {
            model: _over_blocks([row.get(name) for row in rows])
            for model, rows in models.items()
        }
        label = quantities.get(name, title)
        charts.append(_chart(title, series, "block", label, "no block has any"))
    probes = {
        f"{model}, {label}": _over_blocks([row.get(name) for row in rows])
        for model, rows in models.items()
        for name, label in _PROBES.items()
    }
    charts.append(
        _chart(
            "Probe accuracy per layer", probes, "block", "accuracy (%)",
            "tools/analyze.py was run without --train-data",
        )
    )  # fmt: skip
    for pair in analysis["cka"]:
        first, second = pair["models"]
        name = f"CKA of the layers of {first}"
        title = name if first == second else f"{name} (up) and {second} (across)"
        charts.append(f"<div><h3>CKA</h3>{heat_map(title, pair['values'])}</div>")
    figures = " Paper figures." if analysis.get("paper_figures") else ""
    return (
        f"<p>Of {analysis['images']} images, means over heads.{figures}</p>"
        f'<div class="charts">{"".join(charts)}</div>'
    )


def _over_blocks(values: Sequence[Any]) -> list[tuple[float, float]]:
    """Points of a line: a block's value, or the mean of its heads."""
    points = []
    for block, value in enumerate(values, 1):
        heads = value if isinstance(value, list) else [value]
        if heads and None not in heads:
            points.append((float(block), sum(heads) / len(heads)))
    return points
