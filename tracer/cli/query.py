"""`awaitscope query`: SQL over a trace's tables."""

from __future__ import annotations

from pathlib import Path

import click

from tracer.cli.open import opened, reads_a_trace
from tracer.cli.output import Column, Output, emit, output_options


@click.command()
@click.argument("words", nargs=-1, required=True, metavar="[TRACE] SQL")
@output_options
@reads_a_trace
def query(words: tuple[str, ...], output: Output) -> None:
    """Run SQL (DuckDB's) over the tables of TRACE.

    \b
    Example: awaitscope query "SELECT kind, count(*) FROM await GROUP BY kind"
    """
    if len(words) > 2:
        raise click.UsageError("give the trace and one SQL text in quotes")
    trace = Path(words[0]) if len(words) == 2 else None
    rows = opened(trace).query(words[-1])
    emit(rows, [Column(key, key) for key in (rows[0] if rows else {})], output)
