"""The kernel's own statistics of our programs: asked for now and then, and left as they were."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tracer.capture.loader import Loader
from tracer.capture.runtimes import RunTimes

if TYPE_CHECKING:
    from bpf_scope import Scope

pytestmark = pytest.mark.bpf
CALLS = 1009
SECOND = 1_000_000_000


def spent(times: RunTimes, hook: str) -> tuple[int, int]:
    """Return (runs, ns) of a hook."""
    (row,) = [row for row in times.document()["hooks"] if row["hook"] == hook]
    return row["runs"], row["run_ns"]


@pytest.mark.usefixtures("bpf_left_clean")
def test_only_runs_within_a_sample_count() -> None:
    """A sample is from one turn to the next; the next one is due as much later as has passed."""
    sysctl = Path("/proc/sys/kernel/bpf_stats_enabled")
    before = sysctl.read_text()
    loader = Loader(level=1, ring_bytes=1 << 16)
    try:
        loader.attach()
        times = RunTimes(loader.programs())
        for _ in range(CALLS):
            os.getppid()
        assert spent(times, "sys_enter") == (0, 0)
        now = time.monotonic_ns()
        times.turn(now)
        for _ in range(CALLS):
            os.getppid()
        times.turn(now + SECOND)
        runs, ns = spent(times, "sys_enter")
        assert runs >= CALLS  # those of the rest of the machine, too
        assert 10 * runs < ns < SECOND
        times.turn(now + SECOND * 3 // 2)  # too early
        for _ in range(CALLS):
            os.getppid()
        times.turn(now + 3 * SECOND)
        times.end(now + 3 * SECOND)
        assert spent(times, "sys_enter")[0] < runs + CALLS
        assert times.document()["sampled_ns"] == SECOND
    finally:
        loader.close()
    assert sysctl.read_text() == before


def test_a_trace_says_what_its_programs_cost(scope: Scope) -> None:
    """Each hook that ran has its rate and time; the whole is their sum."""
    busy = (
        "import os, time\nend = time.monotonic() + 0.5\nwhile time.monotonic() < end: os.getppid()"
    )
    assert scope.run("python3", "-c", busy).code == 0
    info = scope.document("info")
    seen = info["overhead"]["bpf"]
    hooks = {hook["hook"]: hook for hook in seen["hooks"]}
    assert hooks["sys_enter"]["runs_per_s"] > 1000
    assert 10 < hooks["sys_enter"]["ns_per_run"] < 100_000
    assert 0 < seen["sampled_s"] < info["duration_ns"] / 1e9
    total = sum(hook["cpu_share"] for hook in seen["hooks"])
    assert abs(total - seen["cpu_share"]) < 0.001
