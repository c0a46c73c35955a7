"""`awaitscope doctor`: what is missing here, and the fix."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from tracer.capture.hooks import HOOKS
from tracer.cli.output import Column, Output, emit, output_options
from tracer.system.checks import Check, Tracepoint, first_failure, run_checks
from tracer.system.process import check_process

if TYPE_CHECKING:
    from collections.abc import Sequence

COLUMNS = (
    Column("status", "status"),
    Column("name", "check"),
    Column("seen", "seen"),
    Column("why", "why"),
    Column("fix", "fix"),
)
_COLORS = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command(
    epilog="\b\nExamples:\n  sudo awaitscope doctor\n  sudo awaitscope doctor 4711 --json\n\n"
    "Exit codes: 0 can be traced, 4 a required check failed, 5 PID is gone or not Python."
)
@click.argument("pid", type=click.IntRange(min=1), required=False)
@click.option("--deep", is_flag=True, help="Also compile and attach all probes (about 2 s).")
@output_options
@click.pass_context
def doctor(ctx: click.Context, pid: int | None, output: Output, *, deep: bool) -> None:
    """Check whether this machine, or the process PID, can be traced."""
    about_process = check_process(pid) if pid else []
    wanted = [
        Tracepoint(hook.name, hook.args, hook.required, hook.function)
        for hook in HOOKS
        if hook.program
    ]
    checks = run_checks(wanted=wanted)
    if deep and not first_failure(checks):
        checks.append(_all_probes())
    everything = [*checks, *about_process]
    if output.form == "table" and output.fmt is None:
        click.echo(_text(everything))
    else:
        emit([asdict(check) for check in everything], COLUMNS, output)
    failed = first_failure(everything)
    if failed:
        ctx.exit(5 if failed.name == "interpreter" else 4)


def _all_probes() -> Check:
    from tracer.capture.trial import load_everything  # noqa: PLC0415 (imports bcc)

    return load_everything()


def _text(checks: Sequence[Check]) -> str:
    width = max(len(check.name) for check in checks)
    lines = []
    for check in checks:
        status = click.style(f"{check.status:<4}", fg=_COLORS[check.status])
        lines.append(f"{status}  {check.name:<{width}}  {check.seen}")
        if check.status != "ok":
            lines.append(f"{'':{width + 8}}why: {check.why}")
            if check.fix:
                lines.append(f"{'':{width + 8}}fix: {check.fix}")
    failed = first_failure(checks)
    verdict = f"cannot trace yet: {failed.name}" if failed else "ready to trace"
    return "\n".join([*lines, "", verdict])
