"""`awaitscope demo`: run a demo under trace and print what the document claims, measured."""

from __future__ import annotations

import importlib.util
import os
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tracer.cli.output import Column, Output, emit, emit_json, output_options, table

if TYPE_CHECKING:
    from types import ModuleType

    from tracer.correlate.trace import Trace


@dataclass(frozen=True)
class Demo:
    """A demo: its script, the document's section, and what it needs."""

    name: str
    script: str
    section: str
    what: str


DEMOS = (
    Demo(
        "full-stack",
        "full_stack.py",
        "The Full Stack: From await to Hardware",
        "13 steps of `await conn.fetch(query)`, PostgreSQL one veth hop away",
    ),
)
_LIST = (Column("name", "demo"), Column("section", "section"), Column("what", "shows"))


@click.command()
@click.argument("name", required=False)
@click.option("--list", "list_them", is_flag=True, help="List the demos.")
@click.option(
    "--dsn",
    envvar="AWAITSCOPE_DSN",
    show_envvar=True,
    help="Use this PostgreSQL instead of a private one.",
)
@click.option(
    "--link",
    type=click.Choice(["veth", "lo"]),
    default="veth",
    show_default=True,
    help="How the private PostgreSQL is reached.",
)
@click.option("--queries", type=click.IntRange(1), default=300, show_default=True)
@click.option("--level", type=click.IntRange(1, 3), default=3, show_default=True)
@click.option(
    "-o",
    "--output",
    "folder",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Trace folder; default awaitscope-PROG-PID.trace here.",
)
@output_options
def demo(name: str | None, output: Output, **options: Any) -> None:  # noqa: ANN401
    """Run demo NAME (default: full-stack) under trace and print its tables.

    \b
    Example: sudo awaitscope demo full-stack --link lo
    """
    if options["list_them"]:
        emit([d.__dict__ for d in DEMOS], _LIST, output)
        return
    chosen = next((d for d in DEMOS if d.name == (name or DEMOS[0].name)), None)
    if chosen is None:
        raise click.UsageError(f"there is no demo {name}; see awaitscope demo --list")
    trace, code = _record(chosen, options)
    _show(chosen, trace, output)
    sys.exit(code)


def _record(chosen: Demo, options: dict[str, Any]) -> tuple[Trace, int]:
    from tracer.capture.session import Options  # noqa: PLC0415 (--help must not pay for it)
    from tracer.cli.recording import record_and_correlate, say  # noqa: PLC0415
    from tracer.errors import Prerequisite  # noqa: PLC0415
    from tracer.paths import demos_dir  # noqa: PLC0415

    script = demos_dir() / chosen.script
    also: list[str] = []
    with ExitStack() as stack:
        dsn = options["dsn"]
        if dsn is None:
            if os.geteuid() != 0:
                raise Prerequisite(
                    "the demo needs root: it traces, and makes a network namespace",
                    "sudo make demo",
                )
            lab_module = load_script(demos_dir() / "lab.py")
            say("starting a private PostgreSQL …")
            try:
                lab = stack.enter_context(lab_module.private_postgres(options["link"]))
            except lab_module.LabError as error:
                raise Prerequisite(error.message, error.fix) from error
            dsn = lab.dsn
            also = [str(lab.postmaster_pid)]
            say(f"PostgreSQL {lab.server_version} at {lab.peer_ip} ({lab.link} {lab.device})")
        command = [
            sys.executable,
            str(script),
            "--dsn",
            dsn,
            "--queries",
            str(options["queries"]),
        ]
        trace, recording = record_and_correlate(
            Options(command=command, output=options["folder"], level=options["level"], also=also)
        )
        return trace, recording.exit_code()


def load_script(path: Path) -> ModuleType:
    """Import a demo's helper by its path: demos are no package."""
    spec = importlib.util.spec_from_file_location(f"awaitscope_demo_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise click.ClickException(f"{path} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _fetch_lines(chosen: Demo) -> list[str]:
    """Return `file:line` of every `await conn.fetch` in the demo."""
    from tracer.paths import demos_dir  # noqa: PLC0415 (--help must not pay for it)

    text = (demos_dir() / chosen.script).read_text()
    return [
        f"{chosen.script}:{number}"
        for number, line in enumerate(text.splitlines(), 1)
        if "await conn.fetch(" in line and "`" not in line
    ]


def _show(chosen: Demo, trace: Trace, output: Output) -> None:
    """Print the 13 steps, the insight, the awaits by line, and how many were seen whole."""
    from tracer.cli.awaits import group_columns  # noqa: PLC0415 (--help must not pay for it)
    from tracer.cli.steps import steps_text  # noqa: PLC0415
    from tracer.report.awaits import group_rows  # noqa: PLC0415
    from tracer.report.full_stack import coverage, typical_fetch  # noqa: PLC0415
    from tracer.report.steps import steps_document  # noqa: PLC0415
    from tracer.report.summary import summary  # noqa: PLC0415

    lines = _fetch_lines(chosen)
    document = steps_document(trace, typical_fetch(trace, lines))
    groups = group_rows(trace, "where")
    seen = coverage(trace, lines)
    if output.form == "json":
        emit_json({**document, "groups": groups, "coverage": seen, "trace": str(trace.folder.path)})
        return
    click.echo(steps_text(document, output))
    click.echo("\nAwaits by source line (shares of the eight stages):\n")
    click.echo(table(groups, group_columns("where"), output))
    click.echo(
        f"\n12 or more of the 13 steps were observed for {seen['whole']} of {seen['fetches']}"
        f" fetches ({100 * seen['share']:.1f} %)."
    )
    for line in summary(trace):
        click.echo(line)
