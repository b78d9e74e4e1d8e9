"""Renders benchmark reports as tables."""

from collections.abc import Sequence
from typing import Any


def render(report: dict[str, Any]) -> str:
    """Lay out a report of ``run_step``, ``run_data``, ``run_hog`` or ``run_memory``.

    Args:
        report: What the benchmark returned.

    Returns:
        Several lines without a trailing line break.
    """
    rows = {
        "step": _step_rows,
        "data": _data_rows,
        "hog": _hog_rows,
        "memory": _memory_rows,
    }
    lines = table(rows[report["benchmark"]](report))
    return "\n".join([*_head(report), "", *lines, "", *_foot(report)])


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Align the columns of rows, the first to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [first.ljust(widths[0])]
        cells += [
            cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def _head(report: dict[str, Any]) -> list[str]:
    if report["benchmark"] == "data":
        return [
            f"{report['config']}: {report['data']}, {report['images']} images a round "
            f"from {report['files']} files, page cache {report['page_cache']}, "
            f"workers {report['workers']}, {report['clock']}"
        ]
    if report["benchmark"] == "memory":
        return [
            f"{report['config']}: batch {report['batch_size']}, {report['device']}, "
            f"{report['threads']} CPU threads",
            f"{report['times_fewer_bytes_saved']:.2f} times fewer bytes saved for the "
            "backward pass; gradients differ by at most "
            f"{report['max_gradient_difference']:.1e} (relative)",
        ]
    shape = "x".join(map(str, report["image_shape"]))
    if report["benchmark"] == "hog":
        return [
            f"HOG of {report['nbins']} bins in cells of {report['cell_sizes']} pixels, "
            f"batch {report['batch_size']} of {shape}, {report['device']}, "
            f"{report['threads']} CPU threads, {report['clock']}",
            f"values differ by at most {report['max_difference']:.1e}",
        ]
    return [
        f"{report['config']}: {report['dtype']}, batch {report['batch_size']} of "
        f"{shape}, {report['device']}, {report['threads']} CPU threads, "
        f"{report['clock']}",
        f"largest matrix product: {report['matmul_tflops']:.3g} TFLOP/s",
    ]


def _foot(report: dict[str, Any]) -> list[str]:
    versions = ", ".join(f"{k} {v}" for k, v in report["versions"].items())
    difference = report.get("difference_from_reference")
    lines = []
    if difference is not None:
        lines.append(
            f"ours differs from the reference by {difference['loss']:.1e} in the loss "
            f"and at most {difference['gradient']:.1e} in a gradient (relative)"
        )
    if "rounds" in report:
        lines.append(
            "ratio: how many times as fast ours is, median of "
            f"{report['rounds']} pairs (min-max)"
        )
    return [*lines, f"{versions}, commit {report['commit']}"]


def _step_rows(report: dict[str, Any]) -> list[list[str]]:
    head = ["", "img/s", "ratio", "step ms", "spread", "forward", "backward"]
    head += ["optimizer", "MiB", "MiB/img", "GFLOP/img", "of matmul", "attention"]
    rows = [head]
    for name, entry in report["implementations"].items():
        row = [
            name,
            f"{entry['images_per_s']:.4g}",
            _ratio(report, name),
            f"{entry['step_s']['median'] * 1e3:.4g}",
            f"{entry['step_s']['spread']:.1%}",
        ]
        row += [
            f"{entry[part] * 1e3:.4g}"
            for part in ("forward_s", "backward_s", "optimizer_s")
        ]
        row += [
            _or_dash(entry["memory"]["total_mib"], ".1f"),
            _or_dash(entry["memory"]["per_image_mib"], ".2f"),
            _or_dash(entry["gflop_per_image"], ".4g"),
            _or_dash(entry["share_of_matmul"], ".1%"),
            entry["attention"],
        ]
        rows.append(row)
    return rows


def _data_rows(report: dict[str, Any]) -> list[list[str]]:
    rows = [["", "img/s/core", "ratio", "ms/img", "spread"]]
    for name, entry in report["implementations"].items():
        rows.append(
            [
                name,
                f"{entry['images_per_s_per_core']:.4g}",
                _ratio(report, name),
                f"{entry['ms_per_image']['median']:.3f}",
                f"{entry['spread']:.1%}",
            ]
        )
    return rows


def _hog_rows(report: dict[str, Any]) -> list[list[str]]:
    rows = [["", "img/s", "ratio", "batch ms", "spread"]]
    for name, entry in report["implementations"].items():
        rows.append(
            [
                name,
                f"{entry['images_per_s']:.4g}",
                _ratio(report, name),
                f"{entry['batch_s']['median'] * 1e3:.4g}",
                f"{entry['spread']:.1%}",
            ]
        )
    return rows


def _memory_rows(report: dict[str, Any]) -> list[list[str]]:
    rows = [["", "saved MiB", "peak RSS MiB", "of it the model, MiB"]]
    for name, entry in report["implementations"].items():
        values = (entry[k] for k in ("saved_mib", "peak_rss_mib", "built_rss_mib"))
        rows.append([name, *(f"{value:.1f}" for value in values)])
    return rows


def _ratio(report: dict[str, Any], name: str) -> str:
    ratio = report["times_as_fast_as"].get(name)
    if ratio is None:
        return "-"
    return f"{ratio['median']:.3f} ({ratio['min']:.3f}-{ratio['max']:.3f})"


def _or_dash(value: float | None, style: str) -> str:
    return "-" if value is None else format(value, style)
