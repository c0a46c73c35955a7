"""One test per shape of await: kind, bytes, cut points, reasons, and what ended it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from shape_rows import (
    MS,
    RUN_TIMER,
    check_ended,
    check_round_trip,
    check_woken_by,
    lag_ns,
    stages,
    subjects,
    unknown,
)
from tracing import STAGES

if TYPE_CHECKING:
    from tracing import Tracings

pytestmark = pytest.mark.bpf
TCP_ESTABLISHED = 1


def test_connect(traced: Tracings) -> None:
    """A connect is sent by the call itself and over when the socket is established."""
    trace = traced("shapes.py", "connect")
    for row in subjects(trace):
        assert (row["kind"], row["outcome"]) == ("socket", "result")
        assert (row["sent_bytes"], row["recv_bytes"], row["round_trips"]) == (0, 0, 0)
        (leg,) = trace.legs(row["await_id"])
        call = trace.one("syscall", leg["send_id"])
        assert call["nr"] == 42
        assert leg["t1_ns"] == call["ts_ns"]
        state = trace.one("socket_state", leg["state_id"])
        assert (state["newstate"], state["sock"]) == (TCP_ESTABLISHED, leg["sock"])
        assert leg["t4_ns"] == max(state["ts_ns"], leg["t2_ns"])
        assert leg["t6_ns"] == leg["t7_ns"]
        # On loopback the answer comes inside the call.
        assert ("answer_before_suspend" in row["reasons"]) == (state["ts_ns"] < leg["t2_ns"])
        assert not unknown(row) - {"receive"}
        check_ended(trace, row, "callback")


def test_accept(traced: Tracings) -> None:
    """An accept sends nothing; the connection's arrival makes the listener readable."""
    trace = traced("shapes.py", "accept")
    for row in subjects(trace):
        assert (row["kind"], row["outcome"]) == ("socket", "result")
        assert (row["sent_bytes"], row["recv_bytes"], row["round_trips"]) == (0, 0, 0)
        assert "no_send" in row["reasons"]
        assert not unknown(row)
        assert stages(row)["send"] == 0
        assert 15 * MS < stages(row)["remote"] < row["total_ns"]
        (leg,) = trace.legs(row["await_id"])
        ready = trace.one("receive", leg["rx_id"])
        assert leg["t4_ns"] == ready["ts_ns"] < trace.one("syscall", leg["call_id"])["ts_ns"]
        assert ready["sock"] != leg["sock"]  # the listener's, not the new socket's
        check_ended(trace, row, "callback")


def test_write_only(traced: Tracings) -> None:
    """A drain has no answer: a callback's send makes the task ready, and all bytes count."""
    trace = traced("shapes.py", "write_only")
    (row,), (wait,) = subjects(trace), trace.truth["waits"]
    assert (row["kind"], row["outcome"]) == ("socket", "result")
    assert (row["sent_bytes"], row["recv_bytes"]) == (wait["sent_bytes"], 0)
    assert "buffered_write" in row["reasons"]
    assert unknown(row) == {"receive", "wake"}
    call = check_ended(trace, row, "write")
    assert call
    assert call["nr"] in (44, 46)  # sendto; sendmsg from 3.12 on
    assert call["task"] == 0


def test_several_recvs(traced: Tracings) -> None:
    """An answer in many receives is one trip; the receive that woke the task is the last cut."""
    trace = traced("shapes.py", "several_recvs")
    (row,), (wait,) = subjects(trace), trace.truth["waits"]
    check_round_trip(trace, row, wait)
    last = check_ended(trace, row, "recv")
    assert last
    (leg,) = trace.legs(row["await_id"])
    taken = trace.query(
        f"SELECT sum(ret) AS bytes, count(*) AS calls, max(id) AS last FROM syscall WHERE nr = 45"
        f" AND ret > 0 AND sock = {leg['sock']} AND ts_ns < {row['end_ns']}"
    )[0]
    assert (taken["bytes"], taken["last"]) == (3_000_000, last["id"])
    assert taken["calls"] > 1
    assert stages(row)["receive"] > 0


def test_several_trips(traced: Tracings) -> None:
    """A library's two questions are one row with two trips, each with its own 13 steps."""
    trace = traced("shapes.py", "several_trips")
    (row,), (wait,) = subjects(trace), trace.truth["waits"]
    check_round_trip(trace, row, wait)
    assert row["round_trips"] == 2
    first, second = trace.legs(row["await_id"])
    assert (first["t0_ns"], second["t8_ns"]) == (row["start_ns"], row["end_ns"])
    for name in STAGES:
        assert first[f"{name}_ns"] + second[f"{name}_ns"] == stages(row)[name]
    for trip, sent in ((None, 1003), (1, 1001), (2, 1003)):
        send = trace.steps(row["await_id"], trip)["steps"][2]
        assert send["status"] == "observed"
        assert {proof["ret"] for proof in send["evidence"]} == {sent}


@pytest.mark.parametrize("shape", ["read_in_task", "wrapped_read_in_task"])
def test_read_in_task(traced: Tracings, shape: str) -> None:
    """A receive that the task makes itself after it resumed belongs to the row just ended."""
    trace = traced("shapes.py", shape)
    for row, wait in zip(subjects(trace), trace.truth["waits"], strict=True):
        check_round_trip(trace, row, wait)
        assert row["reasons"] == ["read_in_task"]
        (leg,) = trace.legs(row["await_id"])
        assert leg["t6_ns"] == leg["t7_ns"] == leg["t8_ns"]
        call = check_ended(trace, row, "recv")
        assert call
        assert call["ts_ns"] > row["end_ns"]
        assert call["task"] > 0


def test_shared_recv(traced: Tracings) -> None:
    """One receive for two tasks is in both rows, whole."""
    trace = traced("shapes.py", "shared_recv")
    rows = subjects(trace)
    for row, wait in zip(rows, trace.truth["waits"], strict=True):
        check_round_trip(trace, row, wait)
        assert row["reasons"] == ["recv_shared"]
    assert rows[0]["ended_by"] == rows[1]["ended_by"]


def test_protocol_callback(traced: Tracings) -> None:
    """What a protocol reads and writes without waking a task is a row without task."""
    trace = traced("shapes.py", "protocol_callback")
    rows = [row for row in trace.awaits if row["kind"] == "callback"]
    assert [row["recv_bytes"] for row in rows] == trace.truth["lengths"]
    assert [row["sent_bytes"] for row in rows] == trace.truth["lengths"]
    for row in rows:
        assert (row["task_id"], row["attribution"]) == (None, "exact")
        assert row["ended_by"]["type"] == "callback"
        run = trace.one("callback", row["ended_by"]["id"])
        assert run["ts_ns"] < row["start_ns"] < row["end_ns"] == run["end_ns"]


def test_unix(traced: Tracings) -> None:
    """A Unix socket has no packets; when it became readable is known all the same."""
    trace = traced("shapes.py", "unix")
    for row, wait in zip(subjects(trace), trace.truth["waits"], strict=True):
        check_round_trip(trace, row, wait)
        assert unknown(row) == {"receive"}
        assert stages(row)["remote"] > 1 * MS


def test_busy(traced: Tracings) -> None:
    """An answer that waits for another task's spinning is lag, and the loop being busy its cause.

    The spinner holds the loop from the answer's arrival (t4) to its own end, at least.
    """
    trace = traced("shapes.py", "busy")
    (row,), (wait,) = subjects(trace), trace.truth["waits"]
    check_round_trip(trace, row, wait)
    spin = trace.truth["spin"]
    (leg,) = trace.legs(row["await_id"])
    assert leg["t4_ns"] < trace.truth["answer_sent_ns"] < spin["end_ns"]  # loopback: in the call
    known = spin["end_ns"] - leg["t4_ns"]
    assert lag_ns(row) >= known > 10 * MS
    assert stages(row)["wake"] >= known  # no epoll_wait while it spins
    lag = row["lag"]
    assert lag["loop_busy_ns"] + lag["runq_ns"] > 0.95 * lag_ns(row)
    assert lag["loop_busy_ns"] > lag["runq_ns"]


def test_timer(traced: Tracings) -> None:
    """A sleep is remote until its deadline; what comes after it is lag."""
    trace = traced("shapes.py", "timer")
    for row, wait in zip(subjects(trace), trace.truth["waits"], strict=True):
        assert (row["kind"], row["outcome"], row["reasons"]) == ("timer", "result", [])
        (leg,) = trace.legs(row["await_id"])
        run = check_ended(trace, row, "timer")
        assert run
        assert run["flags"] & RUN_TIMER
        assert leg["t3_ns"] == leg["t4_ns"] == run["wake_ns"]
        duration_ns = wait["deadline_ms"] * MS
        # The deadline counts from the call of sleep: after the note, before the suspension.
        assert wait["start_ns"] <= leg["t4_ns"] - duration_ns <= row["suspend_ns"]
        assert leg["t4_ns"] - leg["t2_ns"] == stages(row)["remote"] <= duration_ns
        assert stages(row)["remote"] > duration_ns - 5 * MS
        assert row["end_ns"] > leg["t4_ns"]


def test_late_timer(traced: Tracings) -> None:
    """A timer that fires late is remote up to its deadline; how late, and why, is its lag."""
    trace = traced("shapes.py", "late_timer")
    (row,), (wait,) = subjects(trace), trace.truth["waits"]
    spin = trace.truth["spin"]
    assert (row["kind"], row["outcome"], row["reasons"]) == ("timer", "result", [])
    (leg,) = trace.legs(row["await_id"])
    deadline_ns = leg["t4_ns"]
    assert wait["start_ns"] <= deadline_ns - wait["deadline_ms"] * MS <= row["suspend_ns"]
    assert spin["start_ns"] < deadline_ns < spin["end_ns"] < leg["t5_ns"]
    late_ns = row["end_ns"] - deadline_ns
    assert stages(row)["remote"] == deadline_ns - leg["t2_ns"]
    assert lag_ns(row) == late_ns
    assert row["lag"]["loop_busy_ns"] + row["lag"]["runq_ns"] >= spin["end_ns"] - deadline_ns


@pytest.mark.parametrize(
    ("shape", "least_ms"), [("task", 13), ("future", 13), ("lock", 16), ("event", 12), ("queue", 0)]
)
def test_woken_by_a_task(traced: Tracings, shape: str, least_ms: int) -> None:
    """A task, future, lock, event or queue is remote until another task's step wakes."""
    trace = traced("shapes.py", shape)
    for row, wait in zip(subjects(trace), trace.truth["waits"], strict=True):
        assert (row["kind"], row["outcome"]) == (shape, "result")
        assert (row["fds"], row["sent_bytes"], row["recv_bytes"]) == ([], 0, 0)
        assert stages(row)["remote"] >= least_ms * MS
        assert not unknown(row)
        check_woken_by(trace, row, wait["woken_by"])


def test_thread(traced: Tracings) -> None:
    """A thread's work is remote until that thread writes to the loop's self-pipe."""
    trace = traced("shapes.py", "thread")
    (row,), (wait,) = subjects(trace), trace.truth["waits"]
    assert (row["kind"], row["outcome"], row["reasons"]) == ("thread", "result", [])
    assert row["ended_by"]["type"] == "thread"
    worker = row["ended_by"]["id"]
    assert worker != row["tid"]
    assert trace.query(f"SELECT * FROM thread WHERE tid = {worker} AND tgid = {row['tgid']}")
    assert stages(row)["remote"] + stages(row)["prepare"] >= wait["duration_ms"] * MS
    assert not unknown(row)
    (leg,) = trace.legs(row["await_id"])
    written = trace.query(
        f"SELECT ret FROM syscall WHERE tid = {worker} AND nr = 44"
        f" AND {leg['t4_ns']} BETWEEN ts_ns AND ts_ns + dur_ns"
    )
    assert [call["ret"] for call in written] == [1]


def test_yield(traced: Tracings) -> None:
    """Each sleep(0) is a row that its own task ended."""
    trace = traced("shapes.py", "yield")
    (wait,) = trace.truth["waits"]
    rows = [row for row in trace.awaits if row["task_name"] == wait["task"]]
    assert len(rows) == trace.truth["count"]
    assert len({row["where"] for row in rows}) == 1
    for row in rows:
        assert (row["kind"], row["outcome"]) == ("yield", "result")
        assert row["ended_by"] == {"type": "task", "id": row["task_id"]}
        assert stages(row)["remote"] == 0


def test_cancelled(traced: Tracings) -> None:
    """A cancelled await is ended by the step of the task that cancelled it."""
    trace = traced("shapes.py", "cancelled")
    (row,), (wait,) = subjects(trace), trace.truth["waits"]
    assert (row["kind"], row["outcome"]) == ("event", "cancelled")
    check_woken_by(trace, row, wait["woken_by"], by="cancel")
    assert stages(row)["remote"] >= 18 * MS


def test_cancelled_by_answer(traced: Tracings) -> None:
    """The bytes that led to a cancellation are of the await that it ended, by the wake edge."""
    trace = traced("shapes.py", "cancelled_by_answer")
    for row, wait in zip(subjects(trace), trace.truth["waits"], strict=True):
        assert (row["outcome"], row["attribution"]) == ("cancelled", "exact")
        assert (row["sent_bytes"], row["recv_bytes"]) == (wait["sent_bytes"], wait["recv_bytes"])
        assert row["ended_by"]["type"] == "callback"
        run = trace.one("callback", row["ended_by"]["id"])
        (call,) = trace.query(
            f"SELECT ts_ns FROM syscall WHERE nr = 45 AND ret = {wait['recv_bytes']}"
        )
        assert run["ts_ns"] < call["ts_ns"] < run["end_ns"]
        assert row["reasons"] == []


def test_open_at_end(traced: Tracings) -> None:
    """An await that the process's end cuts off ends with the trace, incomplete."""
    trace = traced("shapes.py", "open_at_end")
    (row,) = subjects(trace)
    assert (row["kind"], row["outcome"], row["complete"]) == ("event", "open", False)
    assert row["reasons"] == ["trace_ended"]
    assert unknown(row) == {"receive", "wake", "queue", "read", "resume"}
    ended = max(open_row["end_ns"] for open_row in trace.awaits)
    assert row["end_ns"] == ended > row["suspend_ns"] + 10 * MS
    assert row["ended_by"]["id"] is None
