"""What finds a blocked loop: `awaitscope blocking` beside blocksnoop and aiocop, on the same apps.

    sudo .venv/bin/python tests/bench/rivals.py --python /path/to/python3.13

The rivals are installed from their packages into a virtual environment of their own. Each tool
watches tests/apps/blockers.py, which says when it was blocked and by what; then innocent.py, which
never blocks, under a CPU quota of 30 %; then an echo of streams, for the price. blocksnoop and
aiocop are judged mildly: a line counts as right if it is anywhere in the first stack they show.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from tabulate import tabulate

sys.path.append(str(Path(__file__).resolve().parents[2]))
sys.path.append(str(Path(__file__).parent))

from compare import MALLOC

from tests.late_names import late_names
from tests.quota import cpu_quota

APPS = Path(__file__).resolve().parents[1] / "apps"
PACKAGES = (
    "blocksnoop==0.11.1",
    "austin-dist==4.0.0",
    "aiocop==1.2.1",
    "bcrypt>=4.1",
    "requests>=2.31",
)
TOOLS = ("awaitscope", "blocksnoop", "aiocop")
OVER_MS, QUOTA, SECONDS = 50, 0.3, 3
# its loader looks for tracefs below debugfs
WITH_DEBUGFS = (
    "mount -t debugfs none /sys/kernel/debug 2>/dev/null;"
    'mount -t tracefs none /sys/kernel/debug/tracing 2>/dev/null; exec "$@"'
)
CAUSES = {
    **dict.fromkeys(("sleep", "request", "lookup", "lock", "disk", "first"), "syscall"),
    **dict.fromkeys(("password", "parse", "pattern", "collect", "second"), "on_cpu"),
    **dict.fromkeys(("gil_in_one_piece", "gil_in_pieces"), "gil"),
    "many": "many_callbacks",
}
AIOCOP_CAUSE = {"io_blocking": "syscall", "cpu_blocking": "on_cpu"}


@dataclass(frozen=True)
class Report:
    """One thing that a tool says: when, of which cause (None: it tells none), in which lines."""

    start_ns: int
    end_ns: int
    cause: str | None
    lines: str

    def is_of(self, block: dict[str, Any]) -> bool:
        """Say whether it is mostly of this block."""
        common = min(self.end_ns, block["end_ns"]) - max(self.start_ns, block["start_ns"])
        return common > (self.end_ns - self.start_ns) / 2


@dataclass
class Lab:
    """Where it happens: an interpreter that has the rivals, a scratch folder, what goes before."""

    python: str
    folder: Path
    around: list[str]

    def watch(self, tool: str, app: str, *args: str, group: Path | None = None) -> Any:
        """Run an app of tests/apps under a tool; return what the app said and the reports."""
        log = self.folder / f"{tool}.log"
        program = [self.python, str(APPS / app), *args]
        if tool == "awaitscope":
            scope = str(Path(sys.executable).with_name("awaitscope"))
            program = [scope, "run", "--force", "-o", str(log) + ".trace", "--", *program]
        elif tool == "aiocop":
            program[1:1] = [str(Path(__file__).with_name("with_aiocop.py")), str(log)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with subprocess.Popen([*self.around, *program], **pipes) as running:
            assert running.stdin
            assert running.stdout
            pid = running.stdout.readline().strip()
            snoop = self.snoop(pid, log) if tool == "blocksnoop" else None
            if group:
                (group / "cgroup.procs").write_text(pid)
            said = running.communicate("go\n")[0].splitlines()[-1]
        if snoop:
            snoop.send_signal(2)
            snoop.wait()
        return json.loads(said), getattr(self, f"of_{tool}")(log)

    def snoop(self, pid: str, log: Path) -> subprocess.Popen[bytes]:
        """Attach blocksnoop; wait until it says that it has begun."""
        log.unlink(missing_ok=True)
        tool = str(Path(self.python).with_name("blocksnoop"))
        command = [tool, "-t", str(OVER_MS), "--log-file", str(log), pid]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", WITH_DEBUGFS, "sh", *command], **quiet
        )
        deadline = time.monotonic() + 20
        while not (log.exists() and log.read_text()) and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(2)  # its sampler begins later
        return process

    def of_awaitscope(self, log: Path) -> list[Report]:
        """Read the rows of `blocking`; what others did to the program is no accusation."""
        scope = Path(sys.executable).with_name("awaitscope")
        command = [scope, "blocking", str(log) + ".trace", "--over", str(OVER_MS), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return [
            Report(
                row["start_ns"],
                row["start_ns"] + row["dur_ns"],
                row["cause"],
                row["where"] or "",
            )
            for row in json.loads(done.stdout)["rows"]
        ]

    def of_blocksnoop(self, log: Path) -> list[Report]:
        """Read its events; it names no cause. Its stacks begin with the outermost frame."""
        reports = []
        for line in log.read_text().splitlines():
            row = json.loads(line)
            if "duration_ms" not in row:
                continue
            stack = (row.get("python_stacks") or [[]])[0]
            end_ns = _monotonic(row["observed_at"])
            lines = " ".join(f"{frame['file']}:{frame['line']} " for frame in stack)
            reports.append(Report(end_ns - round(row["duration_ms"] * 1e6), end_ns, None, lines))
        return reports

    def of_aiocop(self, log: Path) -> list[Report]:
        """Read its events: the first blocking call, else the commonest stack."""
        reports = []
        for line in log.read_text().splitlines():
            row = json.loads(line)
            samples = sorted(row["cpu_stack_samples"], key=lambda sample: -sample["count"])
            stacks = [*row["blocking_events"], *samples, {"trace": ""}]
            start_ns = row["now_ns"] - round(row["elapsed_ms"] * 1e6)
            cause = AIOCOP_CAUSE.get(row["reason"], row["reason"])
            lines = re.sub(r"(:\d+):", r"\1 ", stacks[0]["trace"])
            reports.append(Report(start_ns, row["now_ns"], cause, lines))
        return reports


def _monotonic(text: str) -> int:
    """Return a wall-clock time of ISO 8601 as CLOCK_MONOTONIC ns."""
    from datetime import datetime

    offset = time.time_ns() - time.monotonic_ns()
    return round(datetime.fromisoformat(text).timestamp() * 1e9) - offset


def guilty(what: str) -> list[str]:
    """Return the guilty lines of a block."""
    text = "time.sleep(0.005)" if what == "many" else f"# blocks: {what}"
    lines = enumerate((APPS / "blocks.py").read_text().splitlines(), 1)
    return [f"{APPS / 'blocks.py'}:{n}" for n, line in lines if text in line]


def judge(blocks: list[dict[str, Any]], reports: list[Report]) -> dict[str, Any]:
    """Count what was seen, of which the cause, and the line, were right; and what was none."""
    seen = [(block, [r for r in reports if r.is_of(block)]) for block in blocks]
    seen = [(block, of_it) for block, of_it in seen if of_it]
    causes = [any(r.cause == CAUSES[b["what"]] for r in of_it) for b, of_it in seen]
    lines = [
        any(line in r.lines + " " for r in of_it for line in (f"{g} " for g in guilty(b["what"])))
        for b, of_it in seen
    ]
    stray = [r for r in reports if not any(r.is_of(block) for block in blocks)]
    return {
        "blocks": len(blocks),
        "seen": len(seen),
        "cause right": sum(causes),
        "line right": sum(lines),
        "false": len(accusing(stray)),
    }


def accusing(reports: list[Report]) -> list[Report]:
    """Leave out what a tool says to be the doing of others."""
    return [report for report in reports if report.cause not in ("preempted", "throttled")]


def echo(lab: Lab, tool: str | None, round_trips: int) -> float:
    """Return the round trips per second of a client that a tool watches; its server is not."""
    echo_app = [lab.python, str(Path(__file__).with_name("echo_app.py"))]
    env = {**os.environ, **MALLOC}
    log = lab.folder / "echo.log"
    with subprocess.Popen(
        [*echo_app, "--role", "server"], stdout=subprocess.PIPE, text=True, env=env
    ) as server:
        assert server.stdout
        port = server.stdout.readline().strip()
        command = [*echo_app, "--role", "client", "--port", port, "--round-trips", str(round_trips)]
        if tool == "awaitscope":
            scope = str(Path(sys.executable).with_name("awaitscope"))
            command = [scope, "run", "--force", "-o", str(log) + ".trace", "--", *command]
        elif tool == "aiocop":
            command[1:1] = [str(Path(__file__).with_name("with_aiocop.py")), str(log)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as client:
            snoop = lab.snoop(str(client.pid), log) if tool == "blocksnoop" else None
            said = json.loads(client.communicate()[0].splitlines()[-1])
        if snoop:
            snoop.send_signal(2)
            snoop.wait()
    return float(said["round_trips"] / said["seconds"])


def found_by(lab: Lab, tool: str) -> dict[str, Any]:
    """Return what a tool finds of the blocks, and whom it accuses where there are none."""
    print(f"{tool}: blocks", file=sys.stderr)
    said, reports = lab.watch(tool, "blockers.py", "--wait")
    row = {"tool": tool, **judge(said["blocks"], reports)}
    print(f"{tool}: quota", file=sys.stderr)
    with cpu_quota(QUOTA) as (_hierarchy, group):
        _said, reports = lab.watch(tool, "innocent.py", "--seconds", str(SECONDS), group=group)
    return row | {"accused under quota": len(accusing(reports))}


def prices(lab: Lab, rounds: int, round_trips: int) -> list[dict[str, Any]]:
    """Return each tool's throughput as a share of the untraced, of the rounds the median."""
    ratios: dict[str, list[float]] = {tool: [] for tool in TOOLS}
    for number in range(rounds):
        print(f"echo: round {number + 1} of {rounds}", file=sys.stderr)
        untraced = echo(lab, None, round_trips)
        for tool in TOOLS:
            ratios[tool].append(echo(lab, tool, round_trips) / untraced)
    return [
        {"tool": tool, "throughput": median(of_it), "min": min(of_it), "max": max(of_it)}
        for tool, of_it in ratios.items()
    ]


def with_packages(python: str, folder: Path) -> str:
    """Make a virtual environment with the rivals; return its interpreter."""
    subprocess.run([python, "-m", "venv", folder], check=True)
    made = str(folder / "bin" / "python")
    subprocess.run([made, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
    if subprocess.run([folder / "bin" / "austin", "--version"], check=False).returncode:
        sys.exit("rivals: without Austin (it wants glibc 2.38) blocksnoop would name no line")
    return made


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--python", default="python3", help="3.12 or later: blocksnoop wants that")
    parser.add_argument("--installed", action="store_true", help="it has the rivals already")
    parser.add_argument("--part", choices=("found", "price"), help="only this table")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--round-trips", type=int, default=48_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="awaitscope-rivals-") as name:
        scratch = Path(name)
        own = options.python
        if not options.installed:
            own = with_packages(own, scratch / "venv")
        os.environ["PATH"] = f"{Path(own).parent}:{os.environ['PATH']}"  # austin is found there
        if options.part != "price":
            with late_names(scratch) as before:
                the_lab = Lab(own, scratch, before)
                print(tabulate([found_by(the_lab, tool) for tool in TOOLS], headers="keys"))
        if options.part != "found":
            table = prices(Lab(own, scratch, []), options.rounds, options.round_trips)
            print(tabulate(table, headers="keys", floatfmt=".2f"))
