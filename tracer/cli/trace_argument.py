"""The TRACE argument that every reader of a trace takes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tracer.errors import Usage

if TYPE_CHECKING:
    from collections.abc import Callable


def newest_trace(folder: Path) -> Path:
    """Return the trace in a folder that was changed last."""
    traces = [path for path in folder.glob("*.trace") if path.is_dir()]
    if not traces:
        raise Usage(
            "no TRACE was given and the current folder has none",
            "sudo awaitscope run -- python app.py",
        )
    return max(traces, key=lambda path: path.stat().st_mtime_ns)


def _default(_ctx: click.Context, _param: click.Parameter, value: Path | None) -> Path:
    return value or newest_trace(Path.cwd())


def trace_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the argument TRACE, passed on as `trace: Path`; left out: the newest here."""
    argument = click.argument(
        "trace",
        type=click.Path(path_type=Path),
        required=False,
        callback=_default,
    )
    return argument(command)
