"""`awaitscope run`: record a command."""

from __future__ import annotations

import sys
from pathlib import Path

import click


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Trace folder; default awaitscope-PROG-PID.trace here.",
)
@click.option(
    "--level",
    type=click.IntRange(1, 3),
    default=3,
    show_default=True,
    help="1 system calls, scheduler, tasks; 2 adds sockets; 3 adds packets, interrupts.",
)
@click.option(
    "--also",
    multiple=True,
    metavar="PID|NAME",
    help="Trace this process and its descendants too; may be repeated.",
)
@click.option(
    "--duration",
    type=click.FloatRange(min=0, min_open=True),
    metavar="S",
    help="Record only so many seconds; the command goes on.",
)
@click.option(
    "--ring",
    "ring_kib",
    type=click.IntRange(4),
    metavar="KIB",
    help="Size of each CPU's ring, a power of two; default 16384, or less so that all CPUs'"
    " rings stay within 128 MiB.",
)
@click.option(
    "--agent-slots",
    type=click.IntRange(16),
    default=65536,
    show_default=True,
    metavar="N",
    help="Records in each agent's ring, a power of two.",
)
@click.option(
    "--watch-blocking",
    "watch_blocking_ms",
    type=click.FloatRange(10),
    metavar="MS",
    help="Tell at once of each step, callback or iteration that holds its loop longer than this.",
)
@click.option("--force", is_flag=True, help="Overwrite the output.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(
    output: Path | None,
    level: int,
    also: tuple[str, ...],
    duration: float | None,
    ring_kib: int | None,
    agent_slots: int,
    watch_blocking_ms: float | None,
    *,
    force: bool,
    command: tuple[str, ...],
) -> None:
    """Run COMMAND under trace.

    Its input, output and exit code are its own; what awaitscope says goes to standard error.
    Ctrl-C reaches the command as ever, and the trace is kept.

    \b
    Example: sudo awaitscope run -- python3 app.py
    """
    from tracer.capture.session import Options  # noqa: PLC0415 (--help must not pay for it)
    from tracer.cli.recording import record_and_correlate  # noqa: PLC0415
    from tracer.errors import Prerequisite  # noqa: PLC0415

    for name, value in (("--ring", ring_kib), ("--agent-slots", agent_slots)):
        if value and value & (value - 1):
            raise click.BadParameter(f"{value} is no power of two", param_hint=name)
    options = Options(
        command=list(command),
        output=output,
        level=level,
        also=list(also),
        duration_s=duration,
        force=force,
        watch_blocking_s=watch_blocking_ms / 1e3 if watch_blocking_ms else None,
        ring_bytes=ring_kib * 1024 if ring_kib else None,
        agent_slots=agent_slots,
    )
    try:
        trace, recording = record_and_correlate(options)
    except Prerequisite as error:
        error.exit_code = 125  # 4 could be the command's own code
        raise
    from tracer.report.summary import summary  # noqa: PLC0415

    for line in summary(trace):
        click.echo(line, err=True)
    sys.exit(recording.exit_code())
