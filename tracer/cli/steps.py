"""`awaitscope steps`: the 13 steps of one await."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from tracer.cli.fit import wrapped
from tracer.cli.open import opened, trace_argument
from tracer.cli.output import Column, Output, emit_json, format_ns, output_options, table
from tracer.report.text import printable

if TYPE_CHECKING:
    from pathlib import Path

_COLUMNS = (
    Column("step", "step", right=True),
    Column("seen", "seen as", right=True, rank=3),
    Column("layer", "layer", rank=2),
    Column("what", "what happens", least=30, fit=wrapped),
    Column("at", "at", right=True),
    Column("took", "took", right=True),
    Column("cpu", "CPU", right=True, rank=3),
    Column("tid", "thread", right=True, rank=3),
    Column("status", "status"),
    Column("proof", "proof, or why not", rank=1, least=24, fit=wrapped),
)


@click.command()
@trace_argument
@click.option("--await", "await_id", type=int, metavar="ID", help="This await.")
@click.option("--slowest", is_flag=True, help="The slowest complete socket await (default).")
@click.option("--task", metavar="T", help="The slowest socket await of this task.")
@click.option("--trip", type=int, metavar="N", help="This trip of the await; default the last.")
@output_options
def steps(
    trace: Path | None,
    await_id: int | None,
    task: str | None,
    trip: int | None,
    output: Output,
    *,
    slowest: bool,
) -> None:
    """Show the 13 steps from an await in your code down to the network and back.

    \b
    Example: awaitscope steps --await 17
    """
    from tracer.report.steps import choose, steps_document  # noqa: PLC0415 (--help: no duckdb)

    if (await_id is not None) + (task is not None) + slowest > 1:
        raise click.UsageError("--await, --task and --slowest exclude each other")
    opened_trace = opened(trace)
    document = steps_document(opened_trace, choose(opened_trace, await_id, task), trip)
    if output.form == "json":
        emit_json(document)
    else:
        click.echo(steps_text(document, output))


def steps_text(document: dict[str, Any], output: Output) -> str:
    """Return the table of 13 steps with the lines around it."""
    row = document["await"]
    first = row["start_ns"]
    seen = {number: place for place, number in enumerate(document["observed_order"], 1)}
    rows = [_row(step, first, seen) for step in document["steps"]]
    name, where = printable(row["task_name"] or ""), printable(row["where"] or "?")
    title = (
        f"await {row['await_id']}: task {name}, {where}, {printable(row['peer'] or 'no peer')},"
        f" {format_ns(row['total_ns'])} ({row['kind']}, {row['outcome']})"
    )
    lines = [
        title,
        "",
        table(rows, _COLUMNS, output),
        "",
        *setup_lines(row),
        *document["notes"],
        "",
        *insight_text(document["insight"]).splitlines(),
    ]
    return "\n".join(line if "\n" in line else wrapped(line, output.width) for line in lines)


def setup_lines(row: dict[str, Any]) -> list[str]:
    """Return how the await came to its connections, in one line; none where it had them."""
    parts = [
        f"{part['what']} {format_ns(part['dur_ns'])} at {_at(part['start_ns'], row['start_ns'])}"
        + (f" ({part['outcome']})" if part["outcome"] != "result" else "")
        for part in row["setup"]
    ]
    return [f"Connection set-up: {', '.join(parts)}."] if parts else []


def insight_text(insight: dict[str, Any]) -> str:
    """Return the key insight in words."""
    if insight["on_cpu_4_to_9_ns"] is None:
        return "Key insight: not measured here (a bound of steps 4 to 9 is missing)."
    window, busy = (format_ns(insight[k]) for k in ("window_ns", "on_cpu_4_to_9_ns"))
    sentence = (
        f"Key insight: between steps 4 and 9 ({window}), threads of this process were on a CPU"
        f" for {busy}."
    )
    lines = [sentence]
    others = insight["loop_did_meanwhile"]
    if others:
        did = ", ".join(
            f"{printable(o['name'] or o['type'])} {format_ns(o['dur_ns'])} ({o['runs']}x)"
            for o in others[:6]
        )
        lines.append(f"Meanwhile the loop ran: {did}.")
    else:
        lines.append("Meanwhile the loop ran nothing.")
    return "\n".join(lines)


def _at(start_ns: int, first: int) -> str:
    return f"{(start_ns - first) / 1e3:.1f} µs"


def _row(step: dict[str, Any], first: int, seen: dict[int, int]) -> dict[str, Any]:
    proof = step["evidence"][0] if step["evidence"] else {}
    start = step["start_ns"]
    names = " → ".join(
        f"{e['event']}#{e['id']}" if "id" in e else e["event"] for e in step["evidence"][:3]
    )
    why = f"({step['reason']})" if step["reason"] else ""
    return {
        **{key: step[key] for key in ("step", "layer", "what", "status")},
        "seen": seen.get(step["step"], "–"),
        "at": _at(start, first) if start is not None else "–",
        "took": format_ns(step["dur_ns"]),
        "cpu": proof.get("cpu"),
        "tid": proof.get("tid"),
        "proof": " ".join(part for part in (names, why) if part),
    }
