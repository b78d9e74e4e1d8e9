"""A table of what a campaign has found, for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def render(reports: Sequence[dict[str, Any]]) -> str:
    """A line for each kind of run.

    Args:
        reports: What happened in each.
    """
    rows: list[tuple[str, list[dict[str, Any]], str]] = []
    kills = [report for report in reports if report["part"] == "kills"]
    for processes in sorted({report["processes"] for report in kills}):
        for kept in sorted({report["kept"] for report in kills}):
            found = [
                x for x in kills if (x["processes"], x["kept"]) == (processes, kept)
            ]
            name = f"killed, {processes} process(es), {kept} kept"
            rows.append((name, found, _kills(found)))
    for report in reports:
        if report["part"] == "processes":
            name = f"from {report['before']} to {report['after']} process(es)"
            more = f"{report['steps']} steps, losses within {report.get('largest')}"
            rows.append((name, [report], more))
        elif report["part"] == "damage":
            more = f"{report['trials']} files, {report['trained']} runs trained on"
            rows.append((report["kind"], [report], more))
        elif report["part"] == "faults":
            rows.append((report["fault"], [report], report["why"]))
    width = max(len(name) for name, _, _ in rows)
    return "\n".join(
        f"{name:{width}}  {sum(x['ok'] for x in found):3} of {len(found):<3} {more}"
        for name, found, more in rows
    )


def _kills(reports: Sequence[dict[str, Any]]) -> str:
    kills = [kill for report in reports for kill in report["kills"]]
    saving = sum(kill["saving"] for kill in kills)
    first = sum(kill["first"] for kill in kills)
    return (
        f"{len(kills)} kills, {saving} while a checkpoint was written, {first} of them "
        "the first"
    )
