"""anyio on asyncio has tasks as asyncio has; trio has system calls and packets, and is told so.

That anyio's awaits have their bytes is a load of test_frameworks.py.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tracing import Traced, Tracings

pytestmark = pytest.mark.bpf
RUN_TIMER = 1  # record.h


def test_a_cancel_scope_cancels_by_its_timer(traced: Tracings) -> None:
    """An await that a scope's deadline ended is cancelled, and the timer is what ended it."""
    trace = traced("anyio_streams.py")
    rows = [
        row
        for row in trace.awaits_at("anyio_streams.py", "await stream.receive()")
        if row["outcome"] == "cancelled"
    ]
    assert len(rows) == trace.truth["used"]["cut"] > 0
    for row in rows:
        assert row["ended_by"]["type"] == "timer"
        assert row["sent_bytes"] == row["recv_bytes"] == 0
        assert trace.one("callback", row["ended_by"]["id"])["flags"] & RUN_TIMER


def test_a_worker_thread_ends_its_await(traced: Tracings) -> None:
    """A call in one of anyio's own worker threads ended by that thread's write to the self-pipe."""
    trace = traced("anyio_streams.py")
    rows = trace.awaits_at("anyio_streams.py", "await to_thread.run_sync(")
    assert len(rows) == trace.truth["used"]["slept"]
    assert {(row["kind"], row["ended_by"]["type"]) for row in rows} == {("thread", "thread")}
    slept = {
        row["tid"] for row in trace.query("SELECT tid FROM syscall WHERE nr IN (35, 230)")
    }  # nanosleep, clock_nanosleep
    assert {row["ended_by"]["id"] for row in rows} == slept
    assert slept.isdisjoint(row["tid"] for row in rows)


@pytest.fixture(scope="module")
def of_trio(traced: Tracings) -> Traced:
    """Give the trace of a program on trio."""
    return traced("trio_streams.py")


def test_trio_has_system_calls_and_packets(of_trio: Traced) -> None:
    """Every byte of its sockets is in the trace, with the packets that carried it, and no task."""
    moved = Counter(of_trio.truth["sent"] + of_trio.truth["received"])
    sent = of_trio.query("SELECT ret FROM syscall WHERE nr = 44 AND ret > 1 AND sock > 0")
    assert Counter(row["ret"] for row in sent) == moved
    packets = of_trio.query("SELECT sum(len_bytes) AS n FROM transmit WHERE len_bytes > 0")
    assert packets[0]["n"] == sum(moved.elements())
    assert of_trio.tasks == of_trio.awaits == []


def test_who_has_no_tasks_is_told(of_trio: Traced, traced: Tracings) -> None:
    """`run` and `info` say that only asyncio's and uvloop's loops have tasks, and only then."""
    (target,) = [t for t in of_trio.info["targets"] if t["agent"] == "c"]
    assert "only asyncio's and uvloop's loops have tasks" in target["reason"]
    assert "no tasks: only asyncio's and uvloop's loops" in of_trio.said
    others = traced("anyio_streams.py")
    assert "no tasks" not in others.said
    assert ["reason" in t for t in others.info["targets"] if t["agent"] == "c"] == [False]
