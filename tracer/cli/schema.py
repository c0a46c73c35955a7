"""`awaitscope schema`: tables and columns with units."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tracer.cli.fit import wrapped
from tracer.cli.open import opened, trace_argument
from tracer.cli.output import Column, Output, emit, output_options

if TYPE_CHECKING:
    from pathlib import Path

_COLUMNS = (
    Column("table", "table"),
    Column("column", "column"),
    Column("type", "type"),
    Column("doc", "meaning", least=20, fit=wrapped),
)


@click.command()
@trace_argument
@output_options
def schema(trace: Path | None, output: Output) -> None:
    """List the tables and columns of TRACE. `_ns` is CLOCK_MONOTONIC nanoseconds.

    \b
    Example: awaitscope schema --fmt github
    """
    from tracer.errors import TraceUnreadable  # noqa: PLC0415
    from tracer.report.schema import schema_rows  # noqa: PLC0415 (--help must not pay for it)

    try:
        known = opened(trace)
    except TraceUnreadable:
        if trace is not None:
            raise
        known = None  # no trace here: what every trace has
    emit(schema_rows(known), _COLUMNS, output)
