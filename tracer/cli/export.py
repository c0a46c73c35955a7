"""`awaitscope export`: a trace in other tools' formats."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tracer.cli.open import opened, trace_argument
from tracer.cli.output import color_option, format_count

if TYPE_CHECKING:
    from collections.abc import Callable

# format -> ending of the file, what is counted; the writer is report.export.FORMAT.write_FORMAT
_FORMATS = {
    "perfetto": ("pftrace", "packets", "open it at ui.perfetto.dev"),
    "chrome": ("json", "events", "open it in chrome://tracing, speedscope or ui.perfetto.dev"),
    "mermaid": ("md", "diagrams", "paste it into Markdown"),
    "csv": ("csv", "awaits", None),
}


@click.command()
@trace_argument
@click.option(
    "--to",
    "to",
    type=click.Choice(list(_FORMATS)),
    required=True,
    help="perfetto: tracks, arrows and counters; chrome: the same as JSON; mermaid: the diagrams of"
    " one await; csv: all awaits.",
)
@click.option(
    "-o",
    "--output",
    "path",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Where to; - is standard output; default: the trace's name with the format's ending.",
)
@click.option(
    "--await", "await_id", type=int, metavar="ID", help="mermaid: this await; default the slowest."
)
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@color_option
def export(
    trace: Path | None, to: str, path: Path | None, await_id: int | None, *, force: bool
) -> None:
    """Write TRACE in another tool's format.

    \b
    Example: awaitscope export --to perfetto -o app.pftrace
    """
    from tracer.cli.outfile import output_file  # noqa: PLC0415 (--help must not pay for it)

    if await_id is not None and to != "mermaid":
        raise click.UsageError("--await goes with --to mermaid only")
    opened_trace = opened(trace)
    ending, counted, viewer = _FORMATS[to]
    target = path or Path(f"{opened_trace.folder.path.resolve().stem}.{ending}")
    writer: Callable[..., int] = getattr(
        importlib.import_module(f"tracer.report.export.{to}"), f"write_{to}"
    )
    chosen: dict[str, Any] = {"await_id": await_id} if to == "mermaid" else {}
    with output_file(target, force=force) as out:
        count = writer(opened_trace, out, **chosen)
    if str(target) != "-":
        hint = f"; {viewer}" if viewer else ""
        click.echo(f"{format_count(count)} {counted}: {target}{hint}", err=True)
