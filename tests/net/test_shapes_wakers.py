"""Awaits that end through a primitive, a child, a callback or a cancellation: who was the cause."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from shape_rows import (
    RUN_TIMER,
    check_caused_by,
    check_ended,
    check_round_trip,
    check_woken_by,
    stages,
    subjects,
    unknown,
)

if TYPE_CHECKING:
    from tracing import Tracings

pytestmark = pytest.mark.bpf
OUTCOME = {"ok": "result"}


@pytest.mark.parametrize("shape", ["locks", "queues"])
def test_primitives(traced: Tracings, shape: str) -> None:
    """Every lock, barrier and queue has its kind and ends with the step of the task that acted."""
    trace = traced("shapes.py", shape)
    for row, wait in zip(subjects(trace), trace.truth["waits"], strict=True):
        assert (row["kind"], row["outcome"]) == (wait["kind"], "result")
        assert (row["fds"], row["sent_bytes"], row["recv_bytes"]) == ([], 0, 0)
        assert stages(row)["remote"] > 0
        if wait["task"] == "conditional_held":  # notified, then it waited for the lock itself
            assert len(trace.legs(row["await_id"])) == 2
            check_caused_by(trace, row, wait["woken_by"])
        else:
            check_woken_by(trace, row, wait["woken_by"])


def test_rolled_up(traced: Tracings) -> None:
    """Whoever waits for children ends with the last of them, whatever callbacks lie between."""
    trace = traced("shapes.py", "rolled_up")
    tasks = {task["task_id"]: task for task in trace.tasks}
    for row, wait in zip(subjects(trace), trace.truth["waits"], strict=True):
        assert (row["kind"], row["outcome"]) == (wait["kind"], "result")
        check_caused_by(trace, row, wait["woken_by"])
        (leg,) = trace.legs(row["await_id"])
        if wait["task"] != "wait_for":  # from 3.12 on it awaits the child itself
            assert leg["t4_ns"] < leg["t6_ns"] < leg["t7_ns"]  # the callback waited for its turn
        child = tasks[row["ended_by"]["id"]]
        assert child["parent_task_id"] == row["task_id"]
        if wait["kind"] == "task":
            assert stages(row)["remote"] > 0
            assert leg["t4_ns"] <= child["ended_ns"] <= row["end_ns"]


def test_children_send_for_the_task_that_gathers_them(traced: Tracings) -> None:
    """Each child has its own bytes; who gathers them created them and ends with the last."""
    trace = traced("shapes.py", "on_behalf")
    rows, waits = subjects(trace), trace.truth["waits"]
    tasks = {task["task_id"]: task for task in trace.tasks}
    for row, wait in zip(rows, waits, strict=True):
        if wait["task"] == "boss":
            assert (row["kind"], row["sent_bytes"], row["recv_bytes"]) == ("task", 0, 0)
            check_caused_by(trace, row, wait["woken_by"])
        else:
            check_round_trip(trace, row, wait)
            assert tasks[row["task_id"]]["parent_task_id"] == trace.task_id("boss")


def test_ended_badly(traced: Tracings) -> None:
    """Failed, timed out and cancelled awaits say so, and who failed or cancelled them."""
    trace = traced("shapes.py", "ended_badly")
    for row, wait in zip(subjects(trace), trace.truth["waits"], strict=True):
        assert row["outcome"] == OUTCOME.get(
            wait["outcome"], wait.get("innermost", wait["outcome"])
        )
        assert row["complete"]
        if "woken_by" in wait:
            check_caused_by(trace, row, wait["woken_by"], wait.get("by", "task"))


def test_timeouts(traced: Tracings) -> None:
    """What a timeout cancels is remote until its deadline, and ended by its timer."""
    trace = traced("shapes.py", "ended_badly")
    (row,) = [r for r in trace.awaits if r["task_name"] == "timed_out" and r["kind"] == "event"]
    assert row["outcome"] == "cancelled"
    run = check_ended(trace, row, "timer")
    assert run
    assert run["flags"] & RUN_TIMER
    (leg,) = trace.legs(row["await_id"])
    assert leg["t3_ns"] == leg["t4_ns"] == run["wake_ns"] < leg["t5_ns"]
    # until 3.11 wait_for then waits for the child that it cancelled, from 3.12 on it has none
    (row,) = [r for r in trace.awaits if r["task_name"] == "wait_for_timed_out"]
    first, *rest = trace.legs(row["await_id"])
    deadline = trace.one("callback", first["callback_id"])
    assert deadline["flags"] & RUN_TIMER
    assert first["t4_ns"] == deadline["wake_ns"]
    assert len(rest) == (row["ended_by"]["type"] == "task")


def test_wrapped(traced: Tracings) -> None:
    """A receive behind shield, wait_for, gather or call_soon is found, with its bytes."""
    trace = traced("shapes.py", "wrapped")
    for row, wait in zip(subjects(trace), trace.truth["waits"], strict=True):
        check_round_trip(trace, row, wait)
        assert row["reasons"] == []
        (leg,) = trace.legs(row["await_id"])
        assert leg["t6_ns"] < leg["t7_ns"] < leg["t8_ns"]


def test_wrapped_reader(traced: Tracings) -> None:
    """So is one behind a reader task, whose own row it ends, too."""
    trace = traced("shapes.py", "wrapped_reader")
    (row,), (wait,) = subjects(trace), trace.truth["waits"]
    check_round_trip(trace, row, wait)
    assert row["reasons"] == ["recv_shared"]
    reader = [r for r in trace.awaits if r["ended_by"] == row["ended_by"]]
    assert {r["task_name"] for r in reader} == {"background", "wrapped_reader"}


def test_loop_calls(traced: Tracings) -> None:
    """The loop's own socket calls are rows of kind socket, with the bytes of their calls."""
    trace = traced("shapes.py", "loop_calls")
    ended = {"sock_recv": "recv", "sock_sendall": "write", "open_connection": "callback"}
    for row, wait in zip(subjects(trace), trace.truth["waits"], strict=True):
        assert (row["kind"], row["outcome"]) == ("socket", "result")
        assert (row["sent_bytes"], row["recv_bytes"]) == (wait["sent_bytes"], wait["recv_bytes"])
        check_ended(trace, row, ended[wait["task"]])
    (connecting,) = [r for r in trace.awaits if r["task_name"] == "open_connection"]
    connect, attach = trace.legs(connecting["await_id"])
    assert trace.one("syscall", connect["send_id"])["nr"] == 42
    assert attach["send_id"] is None


def test_datagrams(traced: Tracings) -> None:
    """A datagram is received in a callback that puts it on a queue: the row is its socket's."""
    trace = traced("shapes.py", "datagrams")
    for row, wait in zip(subjects(trace), trace.truth["waits"], strict=True):
        check_round_trip(trace, row, wait)
        assert not unknown(row) - {"receive"}
        assert stages(row)["remote"] > 0
    server = [row for row in trace.awaits if row["kind"] == "callback"]
    moved = sorted((row["sent_bytes"], row["recv_bytes"]) for row in server)
    assert moved == sorted(
        pair
        for wait in trace.truth["waits"]
        for pair in ((0, wait["sent_bytes"]), (wait["recv_bytes"], 0))
    )
