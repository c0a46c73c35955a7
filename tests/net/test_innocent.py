"""A program that does not block is not accused, whatever others do to it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from tracing import APPS, COMMAND, LOOP_KINDS, Traced, on

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tracing import Row

from tests.quota import cpu_quota

pytestmark = pytest.mark.bpf
SHARE = 0.3
HOGS = 12
# a throttled program waits for 70 ms
OVER_MS, THROTTLED_OVER_MS = "25", "45"
HOG = "import os, sys; print(flush=True)\nwhile os.getppid() > 1: pass"


def recorded(
    folder: Path, loop: str, disturb: Callable[[int], None], over_ms: str = OVER_MS
) -> tuple[Traced, list[str]]:
    """Record the innocent program; what disturbs it begins when it is about to work.

    Returns the trace and what was told of it live.
    """
    out = folder / "innocent.trace"
    options = ["--force", "--level", "1", "-o", out, "--watch-blocking", over_ms]
    command = [COMMAND, "run", *options, "--", sys.executable, APPS / "innocent.py", *on(loop)]
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, **pipes, text=True) as run:
        assert run.stdin
        assert run.stdout
        disturb(int(run.stdout.readline()))
        said, live = run.communicate("go\n", timeout=60)
    assert run.returncode == 0, live
    told = [line for line in live.splitlines() if line.startswith("awaitscope: blocking: ")]
    assert f"times over {over_ms} ms" in told.pop()
    return Traced(out, json.loads(said)), told


def accused(told: list[str]) -> list[str]:
    """Return the live lines that say that the program itself held its loop."""
    assert told
    return [line for line in told if not line.endswith(("not its own doing", "unknown place"))]


def held(trace: Traced, over_ms: str = OVER_MS) -> Counter[str]:
    """Return how long the loop was held by cause, ns."""
    times: Counter[str] = Counter()
    for row in trace.read("blocking", "--over", over_ms)["rows"]:
        times[row["cause"]] += row["dur_ns"]
    return times


def lag(rows: list[Row], cause: str) -> int:
    """Return the time that a cause kept awaits from going on, ns."""
    return sum(row["lag"][f"{cause}_ns"] for row in rows if row["task_id"] is not None)


@pytest.mark.quota
@pytest.mark.parametrize("loop", LOOP_KINDS)
def test_under_a_cpu_quota(tmp_path: Path, loop: str) -> None:
    """Under a CPU quota of 30 % it is throttled, and nothing else: so says cpu.stat, too."""
    with cpu_quota(SHARE) as (hierarchy, group):

        def disturb(pid: int) -> None:
            (group / "cgroup.procs").write_text(str(pid))

        trace, told = recorded(tmp_path, loop, disturb, THROTTLED_OVER_MS)
        periods, throttled_ns = hierarchy.throttled(group)
    assert accused(told) == []
    assert periods > 3
    times = held(trace, THROTTLED_OVER_MS)
    assert set(times) <= {"throttled", "preempted"}
    assert times["throttled"] > 0
    culprits = trace.read("blocking", "--over", THROTTLED_OVER_MS)["culprits"]
    assert {total["culprit"] for total in culprits} == {None}
    off = trace.query("SELECT sum(dur_ns)::BIGINT AS ns FROM off_cpu WHERE why = 1")[0]["ns"]
    assert 0.7 * throttled_ns < off < 1.3 * throttled_ns
    assert lag(trace.awaits, "throttled") > 0.7 * throttled_ns


def test_beside_cpu_hogs(tmp_path: Path) -> None:
    """Beside programs that want its CPU it is preempted, and nothing else."""
    hogs: list[subprocess.Popen[str]] = []

    def disturb(pid: int) -> None:
        os.sched_setaffinity(pid, {0})
        for _ in range(HOGS):
            hog = subprocess.Popen([sys.executable, "-c", HOG], stdout=subprocess.PIPE, text=True)
            hogs.append(hog)
            os.sched_setaffinity(hog.pid, {0})
            assert hog.stdout
            hog.stdout.readline()

    try:
        trace, told = recorded(tmp_path, "asyncio", disturb)
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()
            assert hog.stdout
            hog.stdout.close()
    assert accused(told) == []
    times = held(trace)
    assert set(times) == {"preempted"}
    assert lag(trace.awaits, "throttled") == 0
    assert lag(trace.awaits, "runq") > 0
