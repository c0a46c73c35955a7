"""`awaitscope info`: what was recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from tracer.cli.fit import wrapped
from tracer.cli.open import opened, trace_argument
from tracer.cli.output import (
    ABSENT,
    Column,
    Output,
    emit_json,
    format_count,
    format_ns,
    output_options,
    table,
)
from tracer.report.text import printable

if TYPE_CHECKING:
    from pathlib import Path


def _per_cent(share: float | None) -> str:
    """Show a share of a CPU, which may be over one, with a decimal."""
    return ABSENT if share is None else f"{100 * share:.1f} %"


_LOSSES = [
    Column("event", "event"),
    Column("cpu", "cpu", right=True),
    Column("agent", "agent", right=True),
    Column("seen", "seen", right=True),
    Column("lost", "lost", right=True),
]
_PROBES = [
    Column("hook", "hook"),
    Column("rung", "rung"),
    Column("runs_per_s", "runs/s", format_count, right=True),
    Column("ns_per_run", "ns/run", format_count, right=True),
    Column("cpu_share", "of a CPU", _per_cent, right=True),
    Column("reason", "reason", least=16, fit=wrapped),
]


def _overhead(overhead: dict[str, Any]) -> str:
    """Return what the recording cost in one line."""
    reader = f"reader {_per_cent(overhead['reader_cpu_share'])} of a CPU"
    bpf = overhead["bpf"]
    if bpf is None:
        return f"{reader}; programs in the kernel: {overhead['bpf_reason']}"
    return (
        f"{reader}; programs in the kernel {_per_cent(bpf['cpu_share'])} of a CPU"
        f" ({format_count(bpf['runs_per_s'])} runs/s; seen in {bpf['sampled_s']:.2f} s of it)"
    )


@click.command()
@trace_argument
@output_options
def info(trace: Path | None, output: Output) -> None:
    """Show what TRACE recorded: losses first, then processes, probes, events.

    \b
    Example: awaitscope info awaitscope-python-123.trace --json
    """
    from tracer.report.info import info_document  # noqa: PLC0415 (--help must not pay for it)

    document = info_document(opened(trace))
    if output.form == "json":
        emit_json(document)
        return
    lost = document["lost_total"]
    stopped = f", stopped early ({document['stopped']})" if document["stopped"] else ""
    click.echo(
        f"{printable(document['path'])}: {document['state']}{stopped}, level {document['level']}"
    )
    click.echo(f"lost: {lost} records" + (f" in {len(document['gaps'])} gaps" if lost else ""))
    if lost:
        click.echo(table(document["losses"], _LOSSES, output) + "\n")
    code = document["exit_code"]
    command = printable(" ".join(document["command"]))
    click.echo(f"command: {command} (exit {'unknown' if code is None else code})")
    if document["left_running"]:
        click.echo(f"still running when the recording ended: {document['left_running']}")
    host = document["host"]
    click.echo(f"kernel {host['kernel']}, {host['cpus']} CPUs, bcc {host['bcc']}")
    click.echo(
        f"{format_ns(document['duration_ns'])}, armed in {format_ns(document['armed_ns'])},"
        f" {document['overhead']['events_per_s']:.0f} events/s"
    )
    if document["stolen_untold"]:
        click.echo(
            "CPU time that a hypervisor takes counts as the running thread's:"
            f" {document['stolen_untold']}"
        )
    click.echo(f"overhead: {_overhead(document['overhead'])}\n")
    targets = [
        {**t, "command": " ".join(t["argv"] or [t["exe"] or "?"])[:60]} for t in document["targets"]
    ]
    click.echo(
        table(
            targets,
            [
                Column("tgid", "tgid", right=True),
                Column("agent", "agent"),
                Column("reason", "reason", least=16, fit=wrapped),
                Column("command", "command", least=16),
            ],
            output,
        )
    )
    click.echo()
    events = [{"event": k, **v} for k, v in document["events"].items()]
    click.echo(
        table(
            events,
            [
                Column("event", "event"),
                Column("written", "written", right=True),
                Column("lost", "lost", right=True),
            ],
            output,
        )
    )
    click.echo()
    costs = {hook["hook"]: hook for hook in (document["overhead"]["bpf"] or {"hooks": []})["hooks"]}
    probes = [{**costs.get(probe["hook"], {}), **probe} for probe in document["probes"]]
    click.echo(table(probes, _PROBES, output))
