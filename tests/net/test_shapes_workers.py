"""Awaits on other threads, processes and signals: who worked, when, and where its time went."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from shape_rows import MS, check_ended, stages, subjects, unknown

if TYPE_CHECKING:
    from tracing import Tracings

pytestmark = pytest.mark.bpf
WRITE = 1


@pytest.mark.parametrize("shape", ["thread_pool", "to_thread", "process_pool"])
def test_pools(traced: Tracings, shape: str) -> None:
    """A pool's row tells how long its call queued for a worker, and what the worker did then."""
    trace = traced("shapes.py", shape)
    for row, wait in zip(subjects(trace), trace.truth["waits"], strict=True):
        assert (row["kind"], row["outcome"], row["reasons"]) == ("thread", "result", [])
        assert row["ended_by"]["type"] == "thread"
        assert (row["ended_by"]["id"] == wait["worker"]) == (shape != "process_pool")
        (leg,) = trace.legs(row["await_id"])
        work = row["thread"]
        assert (work["tgid"], work["tid"]) == (wait["process"], wait["worker"])
        assert work["function"] == ("Context.run" if shape == "to_thread" else "work")
        assert row["start_ns"] <= work["given_ns"] <= row["suspend_ns"]
        assert work["begin_ns"] < wait["begin_ns"] < wait["finish_ns"] < work["end_ns"]
        assert work["end_ns"] < leg["t4_ns"] < leg["t5_ns"]
        assert work["queued_ns"] == work["begin_ns"] - work["given_ns"]
        run_ns = work["end_ns"] - work["begin_ns"]
        parts = ("cpu_ns", "runq_ns", "throttled_ns", "gil_ns", "blocked_ns")
        assert sum(work[part] for part in parts) == run_ns
        assert work["cpu_ns"] > 0.9 * wait["cpu_ns"]
        calls = {call["name"]: call for call in work["syscalls"]}
        assert calls["clock_nanosleep"]["dur_ns"] >= 11 * MS
        assert calls["sendto"]["count"] == 1
    works = [row["thread"] for row in subjects(trace)]
    for before, after in pairwise(works):  # one worker: they take turns
        assert before["end_ns"] <= after["begin_ns"]
        assert after["queued_ns"] >= before["end_ns"] - after["given_ns"]
    sent = trace.query(
        "SELECT call.ret, await_id FROM work_total JOIN syscall AS call USING (tid)"
        " WHERE call.nr = 44 AND call.ts_ns BETWEEN begin_ns AND work_total.end_ns ORDER BY 1"
    )
    assert [call["ret"] for call in sent] == [1001, 1002, 1003]
    assert [call["await_id"] for call in sent] == [row["await_id"] for row in subjects(trace)]


def test_short_work(traced: Tracings) -> None:
    """A call that is over before the loop has its future is its worker's all the same."""
    trace = traced("shapes.py", "short_work")
    early = 0
    for row, wait in zip(subjects(trace), trace.truth["waits"], strict=True):
        assert (row["kind"], row["outcome"]) == ("thread", "result")
        assert row["ended_by"] == {"type": "thread", "id": wait["worker"]}
        assert row["thread"]["tid"] == wait["worker"]
        assert row["thread"]["function"] == "get_native_id"
        early += row["reasons"] == ["answer_before_suspend"]
    assert early


def test_subprocesses(traced: Tracings) -> None:
    """A child's end and its output are rows of kind subprocess."""
    trace = traced("shapes.py", "subprocesses")
    for row, wait in zip(subjects(trace), trace.truth["waits"], strict=True):
        assert (row["kind"], row["outcome"]) == (wait["kind"], "result")
        assert stages(row)["remote"] > 0
    # to start a child and to read what it prints through a task of asyncio's own is no socket
    kinds = {row["kind"] for row in trace.awaits}
    assert kinds <= {"subprocess", "task", "future", "callback"}
    # output that came before anybody waited for it
    assert {row["peer"] for row in trace.awaits if row["kind"] == "callback"} <= {"pipe"}


def test_signals(traced: Tracings) -> None:
    """What a signal makes ready is remote until the interpreter wrote to the self-pipe."""
    trace = traced("shapes.py", "signals")
    for row in subjects(trace):
        assert (row["kind"], row["outcome"], row["reasons"]) == ("signal", "result", [])
        assert not unknown(row)
        assert stages(row)["remote"] > 0
        check_ended(trace, row, "callback")
        (leg,) = trace.legs(row["await_id"])
        written = trace.query(
            f"SELECT nr, ret FROM syscall WHERE ts_ns = {leg['t4_ns']} AND tid IN"
            f" (SELECT tid FROM thread WHERE tgid = {row['tgid']})"
        )
        assert written == [{"nr": WRITE, "ret": 1}]
