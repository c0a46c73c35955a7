"""What awaits did besides networking: how often a program made which call in which place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from shape_rows import subjects

from tracer.system.syscalls import NUMBER

if TYPE_CHECKING:
    from tracing import Row, Traced, Tracings

pytestmark = pytest.mark.bpf
FILE = ("pread64", "pwrite64", "fdatasync")
BUFFER = ("mmap", "mremap", "munmap")


def on_file(row: Row) -> dict[str, int]:
    """Return how often a row made each of the calls that the shape makes."""
    return {call["name"]: call["count"] for call in row["syscalls"] if call["name"] in FILE}


def all_of(trace: Traced, *names: str) -> list[Row]:
    """Return the calls of these names on a loop's threads."""
    numbers = ", ".join(str(NUMBER[name]) for name in names)
    return trace.query(
        f"SELECT * FROM syscall WHERE nr IN ({numbers}) AND tid IN (SELECT tid FROM step)"
    )


def test_calls_of_steps_and_receives(traced: Tracings) -> None:
    """A row has the calls of its own steps and of all receives for it, and no others."""
    trace = traced("shapes.py", "hidden")
    for row, wait in zip(subjects(trace), trace.truth["waits"], strict=True):
        assert on_file(row) == wait["syscalls"]
    callbacks = [on_file(row) for row in trace.awaits if row["kind"] == "callback"]
    assert callbacks == [trace.truth["callback"]]


def test_times_are_those_of_the_calls(traced: Tracings) -> None:
    """A row's calls took what they took together, and it took longer."""
    trace = traced("shapes.py", "hidden")
    calls = all_of(trace, "pread64")
    for row in subjects(trace):
        inside = [call for call in calls if row["start_ns"] <= call["ts_ns"] < row["suspend_ns"]]
        (told,) = [call for call in row["syscalls"] if call["name"] == "pread64"]
        assert told["count"] == len(inside)
        assert told["dur_ns"] == sum(call["dur_ns"] for call in inside) < row["total_ns"]


def test_groups(traced: Tracings) -> None:
    """A group's calls are those of its rows: in all, for each await, as a share of the time."""
    trace = traced("shapes.py", "hidden")
    groups = trace.read("awaits", "--group", "where")["rows"]
    for group in groups:
        rows = [row for row in trace.awaits if row["where"] == group["group"] and row["task_id"]]
        for call in group["syscalls"]:
            mine = [c for row in rows for c in row["syscalls"] if c["name"] == call["name"]]
            assert call["count"] == sum(c["count"] for c in mine)
            assert call["dur_ns"] == sum(c["dur_ns"] for c in mine)
            assert call["per_await"] == pytest.approx(call["count"] / group["count"], abs=1e-6)
            share = call["dur_ns"] / group["total_ns"]["sum"]
            assert call["share"] == pytest.approx(share, abs=1e-6)
    (shared,) = [g for g in groups if "pwrite64" in on_file(g)]
    assert shared["count"] == 2


def test_asyncios_receive_buffer(traced: Tracings) -> None:
    """What asyncio maps, moves and unmaps for its receives is in the rows that received."""
    trace = traced("streams.py")
    counted = sum(
        call["count"] for row in trace.awaits for call in row["syscalls"] if call["name"] in BUFFER
    )
    made = len(all_of(trace, *BUFFER))
    assert 0.9 * made <= counted <= made
    assert made == 0 or all(
        row["recv_bytes"]
        for row in trace.awaits
        if {c["name"] for c in row["syscalls"]} >= {*BUFFER}
    )
