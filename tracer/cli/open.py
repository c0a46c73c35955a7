"""The argument TRACE, shared by every command that reads one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from tracer.correlate.trace import Trace

trace_argument: Callable[[Callable[..., Any]], Callable[..., Any]] = click.argument(
    "trace", required=False, type=click.Path(path_type=Path)
)


def opened(trace: Path | None) -> Trace:
    """Open the given trace, or the newest in the current folder; say first what it lacks."""
    from tracer.correlate.trace import open_trace  # noqa: PLC0415 (--help must not pay for it)
    from tracer.report.summary import shortcomings  # noqa: PLC0415

    found = open_trace(trace, Path.cwd())
    for line in shortcomings(found):
        click.echo(line, err=True)
    return found
