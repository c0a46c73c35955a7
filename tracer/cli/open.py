"""The argument TRACE, shared by every command that reads one."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from tracer.correlate.trace import Trace

_argument: Callable[[Callable[..., Any]], Callable[..., Any]] = click.argument(
    "trace", required=False, type=click.Path(path_type=Path)
)


def trace_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the argument TRACE to a command that reads one."""
    return _argument(reads_a_trace(command))


def reads_a_trace(command: Callable[..., Any]) -> Callable[..., Any]:
    """Let what a command stumbles over in a damaged trace be one clear error."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 (a decorator of any command)
        from tracer.correlate.damage import one_error  # noqa: PLC0415 (--help must not pay for it)

        with one_error("the trace", click.ClickException, click.exceptions.Exit):
            return command(*args, **kwargs)

    return wrapped


def opened(trace: Path | None) -> Trace:
    """Open the given trace, or the newest in the current folder; say first what it lacks."""
    from tracer.correlate.trace import open_trace  # noqa: PLC0415 (--help must not pay for it)
    from tracer.report.summary import shortcomings  # noqa: PLC0415

    found = open_trace(trace, Path.cwd())
    for line in shortcomings(found):
        click.echo(line, err=True)
    return found
