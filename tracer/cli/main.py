"""The command `awaitscope`: a table of commands, each imported only when it is used."""

from __future__ import annotations

import errno
import importlib
from typing import Any

import click

from tracer import __version__
from tracer.cli.output import color_option
from tracer.errors import AwaitscopeError
from tracer.report.text import printable

# name -> the line in `awaitscope --help`; the command is `tracer.cli.NAME.NAME`
COMMANDS = {
    "run": "Run a command under trace.",
    "info": "Show what a trace recorded and what was lost.",
    "tasks": "List the asyncio tasks of a trace.",
    "awaits": "List the awaits and where their time went.",
    "blocking": "List what held the loop, why, and whom it delayed.",
    "steps": "Show the 13 steps of one await.",
    "report": "Write a trace as one HTML page.",
    "timeline": "Draw one await as a swimlane.",
    "export": "Write a trace for Perfetto, Chrome, Mermaid or as CSV.",
    "demo": "Run a demo under trace: the 13 steps with real times.",
    "query": "Run SQL over a trace's tables.",
    "schema": "List tables and columns with units.",
    "doctor": "Check whether this machine, or one process, can be traced.",
}

EPILOG = """\b
Examples:
  sudo awaitscope run -- python3 app.py    record a program
  awaitscope steps                         the 13 steps of its slowest await
  awaitscope doctor                        what is missing here, and the fix

\b
Exit codes: 0 good, 2 wrong usage, 4 a prerequisite is missing, 5 the target vanished
or is not Python, 6 the trace is unreadable or from a newer version. `run` returns the
command's own code (128 + signal if one ended it); 125 awaitscope failed, 126 the command
cannot be executed, 127 there is no such command."""


def show_error(error: AwaitscopeError) -> None:
    """Print the sentence and its fix to standard error."""
    click.echo(f"{click.style('awaitscope:', fg='red')} {printable(error.message)}", err=True)
    if error.fix:
        click.echo(f"  fix: {printable(error.fix)}", err=True)


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        """Return the names in the table's order."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import the command; None makes click say that there is none."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"tracer.cli.{cmd_name}")
        command = getattr(module, cmd_name)
        if not isinstance(command, click.Command):
            raise TypeError(f"tracer.cli.{cmd_name}.{cmd_name} is not a command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the table without importing any command."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 (click's signature)
        """Run the command: the one place where our errors become text and an exit code."""
        try:
            return super().invoke(ctx)
        except AwaitscopeError as error:
            show_error(error)
            ctx.exit(error.exit_code)
        except OSError as error:
            if error.errno == errno.EPIPE:  # whoever read our output has enough
                raise
            where = f"{error.filename}: " if error.filename else ""
            show_error(AwaitscopeError(f"{where}{error.strerror or error}"))
            ctx.exit(1)


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EPILOG,
)
@click.version_option(__version__, "--version", prog_name="awaitscope")
@color_option
def main() -> None:
    """See for every `await` what happened beneath it.

    Tasks, system calls, packets, interrupts, wakeups and queues of an asyncio program, and
    which of them took the time.
    """
