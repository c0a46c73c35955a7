"""`awaitscope report`: the trace as one HTML page."""

from __future__ import annotations

from pathlib import Path

import click

from tracer.cli.open import opened, trace_argument
from tracer.cli.output import color_option, format_bytes


@click.command()
@trace_argument
@click.option(
    "-o",
    "--output",
    "path",
    type=click.Path(path_type=Path),
    metavar="FILE.html",
    help="Where to; - is standard output; default: the trace's name with .html.",
)
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@color_option
def report(trace: Path | None, path: Path | None, *, force: bool) -> None:
    """Write TRACE as one HTML page: findings, lines, single awaits, timeline. It needs no network.

    \b
    Example: awaitscope report -o app.html
    """
    from tracer.cli.outfile import output_file  # noqa: PLC0415 (--help must not pay for it)
    from tracer.report.page.document import page_document  # noqa: PLC0415
    from tracer.report.page.render import render  # noqa: PLC0415

    opened_trace = opened(trace)
    target = path or Path(f"{opened_trace.folder.path.resolve().stem}.html")
    with output_file(target, force=force) as out:
        page = render(page_document(opened_trace)).encode()
        out.write(page)
    if str(target) != "-":
        click.echo(f"{format_bytes(len(page))}: {target}; open it in a browser", err=True)
