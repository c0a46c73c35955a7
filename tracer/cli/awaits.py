"""`awaitscope awaits`: one row per await, or per group of them."""

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
    format_bytes,
    format_calls,
    format_ns,
    format_place,
    format_share,
    output_options,
)
from tracer.correlate.words import KINDS, STAGES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def _longest(stages: dict[str, Any]) -> str:
    """Return the stage that took the most, and what it took: a time, or a share of one."""
    known = {name.removesuffix("_ns"): value for name, value in stages.items() if value}
    if not known:
        return ABSENT
    name = max(known, key=lambda stage: known[stage])
    show = format_share if isinstance(known[name], float) else format_ns
    return f"{name} {show(known[name])}"


def _per_await(calls: list[dict[str, Any]]) -> str:
    """Return how often an await of a group makes each call, and the share of its time."""
    shown = [f"{c['per_await']:.2g}x {c['name']} {100 * c['share']:.1f} %" for c in calls[:3]]
    return ", ".join(shown) or ABSENT


def await_columns(kind: str | None = None) -> Sequence[Column]:
    """Return the columns of the table of awaits; those of a thread tell what its worker did."""
    worker = (
        Column("thread.function", "function", rank=1, least=12),
        *(
            Column(f"thread.{key}_ns", title, format_ns, right=True, rank=1)
            for key, title in (
                ("queued", "queued"),
                ("cpu", "worker CPU"),
                ("runq", "run queue"),
                ("blocked", "blocked"),
            )
        ),
    )
    return (
        Column("await_id", "await", right=True),
        Column("task_name", "task", least=10),
        Column("kind", "kind"),
        Column("where", "where", format_place, least=16, fit=tail),
        Column("total_ns", "total", format_ns, right=True),
        *(Column(f"stages.{n}_ns", n, format_ns, right=True, rank=2) for n in STAGES),
        Column("stages", "longest stage", _longest, instead=2),
        Column("sent_bytes", "sent", format_bytes, right=True, rank=3),
        Column("recv_bytes", "received", format_bytes, right=True, rank=3),
        Column("outcome", "outcome", rank=3),
        Column("syscalls", "hidden calls", format_calls, rank=4, least=12),
        *(worker if kind == "thread" else ()),
    )


def group_columns(by: str) -> Sequence[Column]:
    """Return the columns of a grouped table."""
    return (
        Column("group", by, format_place if by == "where" else None, least=16, fit=tail),
        Column("count", "count", right=True),
        *(Column(f"total_ns.{q}", q, format_ns, right=True) for q in ("p50", "p95", "p99", "max")),
        *(Column(f"stages.{n}", n, format_share, right=True, rank=1) for n in STAGES),
        Column("stages", "longest stage", _longest, instead=1),
        Column("syscalls", "hidden calls an await", _per_await, rank=2, least=20),
    )


@click.command()
@trace_argument
@click.option("--task", metavar="T", help="Only this task: its number or its name.")
@click.option("--kind", type=click.Choice(KINDS), help="Only awaits of this kind.")
@click.option(
    "--slowest", type=click.IntRange(1), metavar="N", help="The N slowest, slowest first."
)
@click.option(
    "--group",
    "group",
    type=click.Choice(["where", "coroutine", "task"]),
    help="One row per source line, coroutine or task name.",
)
@output_options
def awaits(trace: Path | None, output: Output, **options: Any) -> None:  # noqa: ANN401
    """List the awaits of TRACE and where their time went.

    \b
    Stages: prepare, send, remote (waiting for the peer), receive, wake, queue, read, resume.
    Example: awaitscope awaits --slowest 10
    """
    from tracer.report.awaits import await_rows, group_rows  # noqa: PLC0415 (--help: no duckdb)

    opened_trace = opened(trace)
    by = options["group"]
    if by:
        if options["task"] or options["slowest"]:
            raise click.UsageError("--group goes with --kind only")
        emit(group_rows(opened_trace, by, options["kind"]), group_columns(by), output)
        return
    rows = await_rows(
        opened_trace, task=options["task"], kind=options["kind"], slowest=options["slowest"]
    )
    emit(rows, await_columns(options["kind"]), output)
