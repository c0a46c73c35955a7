"""What a hypervisor takes from a CPU is not time that a thread had it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from ctypes import c_int
from pathlib import Path
from typing import Any

import pytest
from bpf_scope import until

from tracer.capture import offsets
from tracer.capture.loader import Loader
from tracer.system.btf import Btf

pytestmark = [pytest.mark.bpf, pytest.mark.usefixtures("bpf_left_clean")]
TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
SPIN_S = 0.3
# the run queue's own clock in place of its steal clock: each moment on a CPU is a stolen one
AS_IF = """
import sys
from tracer.capture import loader, offsets
loader.untold = lambda _btf: None
offsets._STOLEN = ({**offsets._STOLEN[0], "O_RQ_STEAL": ("rq", "clock")},)
from tracer.cli.main import main
main(sys.argv[1:])
"""
SPIN = f"""
import asyncio, time
async def main():
    end = time.thread_time() + {SPIN_S}
    while time.thread_time() < end: pass
asyncio.run(main())
"""


def told_by_proc_stat() -> dict[int, int]:
    """Return what was stolen from each CPU since boot, ns, rounded down to ticks (proc(5))."""
    rows = [line.split() for line in Path("/proc/stat").read_text().splitlines()]
    cpus = [row for row in rows if row[0].startswith("cpu") and row[0] != "cpu"]
    return {int(row[0].removeprefix("cpu")): int(row[8]) * TICK_NS for row in cpus}


def test_the_counter_is_that_of_proc_stat(monkeypatch: pytest.MonkeyPatch) -> None:
    """On each CPU that we were on, the probes see what /proc/stat tells in whole ticks."""
    kernel = Btf.load()
    ways = [way for way in offsets._STOLEN if kernel.has_member(*way["O_RQ_STEAL"])]
    assert ways
    for way in ways:
        monkeypatch.setattr(offsets, "_STOLEN", (way,))
        loader = Loader(1, 1 << 16, kernel)
        try:
            loader.seed_thread(os.getpid(), os.getpid())
            loader.attach()
            # both are brought up to date at ticks, not at the same one
            until(lambda seen=loader: all(agree(seen)), f"{way['O_RQ_STEAL']} as in /proc/stat")
        finally:
            loader.close()


def agree(loader: Loader) -> list[bool]:
    """Say of each CPU whether the probes' number is that of /proc/stat, but for a tick or two."""
    cpus = os.sched_getaffinity(0)
    try:
        for cpu in cpus:
            os.sched_setaffinity(0, {cpu})
            time.sleep(0.02)
    finally:
        os.sched_setaffinity(0, cpus)
    states, told = loader._bpf[b"cpu_states"][c_int(0)], told_by_proc_stat()
    return [-TICK_NS <= states[cpu].stolen_ns - told[cpu] <= 2 * TICK_NS for cpu in cpus]


def test_a_thread_whose_time_was_stolen_did_not_hold_its_loop(scope: Any) -> None:
    """A busy step all of whose time was stolen is preempted, and on no CPU but for some us."""
    command = ["run", "-o", "t", "--level", "1", "--", sys.executable, "-c", SPIN]
    subprocess.run([sys.executable, "-c", AS_IF, *command], cwd=scope.folder, check=True)
    (row,) = scope.document("blocking", "--over", str(SPIN_S * 900))["rows"]
    assert row["cause"] == "preempted"
    assert row["on_cpu_ns"] < row["dur_ns"] / 20
    assert SPIN_S * 0.9e9 < row["stolen_ns"] <= row["runq_ns"]
    sums = sum(row[f"{part}_ns"] for part in ("on_cpu", "syscall", "gil", "runq", "throttled"))
    assert sums == row["dur_ns"]
    # a thread that stays on its CPU is looked at at every tick, at 100 Hz or more
    done = scope.call("query", "t", f"SELECT dur_ns FROM stolen WHERE tid = {row['tid']}", "--json")
    longest = max(found["dur_ns"] for found in json.loads(done.out)["rows"])
    assert longest < SPIN_S * 0.5e9
    assert 0 <= scope.document("tasks")["rows"][0]["cpu_ns"] < row["dur_ns"] / 20
