"""`awaitscope blocking`: what held the loop, why, and whom it delayed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from tracer.cli.fit import tail
from tracer.cli.open import opened, trace_argument
from tracer.cli.output import (
    ABSENT,
    Column,
    Output,
    emit,
    format_calls,
    format_ns,
    format_place,
    output_options,
    table,
)
from tracer.correlate.words import LIBUV, LONG_HOLD_NS
from tracer.report.text import printable

if TYPE_CHECKING:
    from pathlib import Path


def _who(row: dict[str, Any]) -> str:
    """Return the task, the callback, or the callbacks that held the loop longest."""
    ran = ", ".join(f"{r['count']}x {_called(r['name'], row['chain'])}" for r in row["ran"][:2])
    return row["task_name"] or _called(row["name"], row["chain"]) or ran or ABSENT


def _called(name: str | None, chain: list[str]) -> str | None:
    """Return a callback's name; of one that libuv called the function, if it was seen."""
    return chain[-1].rpartition(" ")[2] if name == LIBUV and chain else name


_COLUMNS = (
    Column("at_ns", "at", format_ns, right=True),
    Column("dur_ns", "held", format_ns, right=True),
    Column("cause", "cause"),
    Column("who", "who", least=10),
    Column("where", "where", format_place, least=13, fit=tail),
    Column("c_function", "C code", rank=1, least=10, fit=tail),
    Column("on_cpu_ns", "on CPU", format_ns, right=True, rank=3),
    Column("syscall_ns", "blocked", format_ns, right=True, rank=3),
    Column("gil_ns", "GIL", format_ns, right=True, rank=4),
    Column("runq_ns", "run queue", format_ns, right=True, rank=4),
    Column("stolen_ns", "stolen", format_ns, right=True, rank=5),
    Column("throttled_ns", "throttled", format_ns, right=True, rank=4),
    Column("syscalls", "system calls", format_calls, rank=2, least=20),
    Column("delayed_awaits", "delayed", right=True),
)
_CULPRITS = (
    Column("culprit", "culprit", format_place, least=16, fit=tail),
    Column("cause", "cause"),
    Column("count", "times", right=True, rank=1),
    Column("dur_ns", "held in all", format_ns, right=True),
    Column("max_ns", "longest", format_ns, right=True, rank=2),
    Column("delayed_awaits", "awaits delayed", right=True),
    Column("delayed_ns", "by, in all", format_ns, right=True),
)


@click.command()
@trace_argument
@click.option(
    "--over",
    "over_ms",
    type=click.FloatRange(1),
    default=LONG_HOLD_NS // 1_000_000,
    show_default=True,
    metavar="MS",
    help="Only what held a loop longer than this.",
)
@output_options
def blocking(trace: Path | None, over_ms: float, output: Output) -> None:
    """List what held an event loop of TRACE, why, and whom it delayed.

    \b
    Causes: on_cpu, syscall (blocked), gil, preempted (others had the CPU, or, so much of it as is
    stolen, the hypervisor), throttled (CPU quota), many_callbacks (one loop iteration full of
    short ones).
    Example: awaitscope blocking --over 20
    """
    from tracer.report.blocking import (  # noqa: PLC0415 (--help: no duckdb)
        blocking_rows,
        culprits,
        suffered_most,
    )

    opened_trace = opened(trace)
    rows = blocking_rows(opened_trace, round(over_ms * 1e6))
    totals, worst = culprits(rows), suffered_most(opened_trace)
    if output.form != "table":
        emit(rows, _COLUMNS, output, extra={"culprits": totals, "suffered_most": worst})
        return
    first = opened_trace.manifest["start_ns"]
    shown = [{**row, "at_ns": row["start_ns"] - first, "who": _who(row)} for row in rows]
    click.echo(table(shown, _COLUMNS, output))
    if totals:
        click.echo("\n" + table(totals, _CULPRITS, output))
    if worst:
        click.echo(
            f"\ndelayed most: task {printable(worst['task_name'] or str(worst['task_id']))},"
            f" {format_ns(worst['delayed_ns'])}"
        )
