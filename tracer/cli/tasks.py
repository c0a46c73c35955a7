"""`awaitscope tasks`: one row per asyncio task."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tracer.cli.fit import tail
from tracer.cli.open import opened, trace_argument
from tracer.cli.output import Column, Output, emit, format_ns, output_options

if TYPE_CHECKING:
    from pathlib import Path

_COLUMNS = (
    Column("task_id", "task", right=True),
    Column("task_name", "name", least=10),
    Column("coroutine", "coroutine", least=12, fit=tail),
    Column("parent_task_id", "parent", right=True, rank=1),
    Column("steps", "steps", right=True),
    Column("awaits", "awaits", right=True),
    Column("cpu_ns", "on CPU", format_ns, right=True),
    Column("longest_step_ns", "longest step", format_ns, right=True),
)


@click.command()
@trace_argument
@output_options
def tasks(trace: Path | None, output: Output) -> None:
    """List the asyncio tasks of TRACE.

    \b
    Example: awaitscope tasks --json
    """
    from tracer.report.awaits import task_rows  # noqa: PLC0415 (--help must not pay for it)

    emit(task_rows(opened(trace)), _COLUMNS, output)
