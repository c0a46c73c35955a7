"""Record a command and finish its trace: what `run` and `demo` share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tracer.capture.session import Options, Recording, record
from tracer.correlate.trace import Trace, complete
from tracer.errors import AwaitscopeError
from tracer.report.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable


def say(line: str) -> None:
    """Print one line of progress to standard error."""
    click.echo(f"awaitscope: {printable(line)}", err=True)


def record_and_correlate(
    options: Options, tell: Callable[[str], None] = say
) -> tuple[Trace, Recording]:
    """Return the finished trace, and the recording that knows the command's exit code."""
    recording = record(options, tell)
    if recording.target.wait(0) is not None:
        recording.target.restore_signals()  # Ctrl-C may end the correlation; the trace stays
    tell("correlating …")
    try:
        manifest = complete(recording.folder)
    except AwaitscopeError as error:
        recording.exit_code()  # if it stopped early, the command still runs
        error.exit_code = 125
        raise
    return Trace(recording.folder, manifest), recording
