"""`awaitscope timeline`: the swimlane of one await in the terminal."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import click

from tracer.cli.fit import wrapped
from tracer.cli.open import opened, trace_argument
from tracer.cli.output import Column, Output, emit, emit_json, format_ns, output_options, table
from tracer.cli.steps import setup_lines
from tracer.report.colors import STAGE_COLORS
from tracer.report.text import printable

if TYPE_CHECKING:
    from pathlib import Path

_MARKS = {"observed": "█", "inferred": "▒"}
_LABEL = 16
_COLUMNS = (
    Column("lane", "lane"),
    Column("step", "step", right=True),
    Column("at", "at", format_ns, right=True),
    Column("took", "took", format_ns, right=True),
    Column("status", "status"),
    Column("what", "what happens", least=20, fit=wrapped),
)


@click.command()
@trace_argument
@click.option("--await", "await_id", type=int, metavar="ID", help="This await; default the slowest")
@click.option("--trip", type=int, metavar="N", help="This trip of the await; default the last.")
@output_options
def timeline(
    trace: Path | None,
    await_id: int | None,
    trip: int | None,
    output: Output,
) -> None:
    """Draw one await of TRACE as a swimlane: who worked when.

    \b
    Example: awaitscope timeline --await 17
    """
    from tracer.report.lanes import swimlane  # noqa: PLC0415 (--help: no duckdb)
    from tracer.report.steps import choose  # noqa: PLC0415

    opened_trace = opened(trace)
    document = swimlane(opened_trace, choose(opened_trace, await_id, None), trip)
    rows = _rows(document)
    if output.form == "json":
        emit_json(document)
    elif output.form == "csv":
        emit(rows, _COLUMNS, output)
    else:
        click.echo(drawing(document, output.width or shutil.get_terminal_size().columns))
        click.echo("\n" + table(rows, _COLUMNS, output))
        for line in setup_lines(document["await"]):
            click.echo("\n" + wrapped(line, output.width))


def _rows(document: dict[str, Any]) -> list[dict[str, Any]]:
    first = document["start_ns"]
    spans = [(span, lane["lane"]) for lane in document["lanes"] for span in lane["spans"]]
    return [
        {
            "lane": lane,
            **{key: span[key] for key in ("step", "status", "what")},
            "at": span["start_ns"] - first,
            "took": span["end_ns"] - span["start_ns"],
        }
        for span, lane in sorted(spans, key=lambda s: (s[0]["start_ns"], s[0]["step"]))
    ]


def drawing(document: dict[str, Any], width: int) -> str:
    """Return the swimlane as text; what is shorter than a column is a thin line.

    Args:
        document: what swimlane() gives.
        width: columns in all.

    """
    row, first = document["await"], document["start_ns"]
    # the last step begins where the await ends: room for it
    ends = [s["end_ns"] for lane in document["lanes"] for s in lane["spans"] if s["step"] != 13]
    last = max([document["end_ns"], *ends])
    bar = max(width - _LABEL - 1, 1)
    scale = bar / max(last - first, 1)
    name, where = printable(row["task_name"] or ""), printable(row["where"] or "?")
    lines = [
        wrapped(
            f"await {row['await_id']}, trip {document['trip']}: task {name}, {where},"
            f" {format_ns(document['end_ns'] - first)} ({row['kind']}, {row['outcome']})",
            width,
        ),
        "",
        " " * _LABEL + _ruler(last - first, bar),
    ]
    cells = [" "] * bar
    for stage in document["stages"]:
        whole, thin = (_in_color(stage["stage"], mark) for mark in "█▏")
        _fill(cells, stage, first, scale, (whole, thin))
    lines.append("stages".ljust(_LABEL) + "".join(cells).rstrip())
    for lane in document["lanes"]:
        cells = ["·"] * bar
        for span in lane["spans"]:
            _fill(cells, span, first, scale, (_MARKS[span["status"]], "▏"))
        lines.append(lane["lane"].ljust(_LABEL) + "".join(cells))
    known = {stage["stage"]: stage["end_ns"] - stage["start_ns"] for stage in document["stages"]}
    keys = {name: f"{name} {format_ns(known[name])}" for name in STAGE_COLORS if name in known}
    return "\n".join([*lines, "", *_legend(keys, width)])


def _in_color(stage: str, mark: str) -> str:
    return click.style(mark, fg=STAGE_COLORS[stage].terminal)


def _legend(keys: dict[str, str], width: int) -> list[str]:
    """Return the stages' colours and times, in as many lines as they need."""
    lines, room = [""], width
    for stage, text in keys.items():
        if lines[-1] and room < len(text) + 4:
            lines.append("")
            room = width
        lines[-1] += ("  " if lines[-1] else "") + f"{_in_color(stage, '█')} {text}"
        room -= len(text) + 4
    return lines


def _fill(
    cells: list[str], span: dict[str, Any], first: int, scale: float, marks: tuple[str, str]
) -> None:
    """Draw a span: whole columns that it covers, one thin line if it covers none."""
    at = min(max(int((span["start_ns"] - first) * scale), 0), len(cells) - 1)
    to = min(int((span["end_ns"] - first) * scale), len(cells))
    if to <= at:
        cells[at] = marks[1]
    for column in range(at, to):
        cells[column] = marks[0]


def _ruler(length: int, bar: int) -> str:
    """Return the times at the begin, the middle and the end."""
    middle, end = format_ns(length / 2), format_ns(length)
    half = bar // 2
    return "0".ljust(half) + middle.ljust(max(bar - half - len(end), 0)) + end
