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
    """Open the given trace, or the newest in the current folder."""
    from tracer.correlate.trace import open_trace  # noqa: PLC0415 (--help must not pay for it)

    return open_trace(trace, Path.cwd())
