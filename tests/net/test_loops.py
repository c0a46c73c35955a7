"""Several loops: at once, one after the other, in forked processes, and with eager tasks."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest
from exact import check_exact
from tracing import EAGER_PYTHONS, LOOP_KINDS, interpreter, on

if TYPE_CHECKING:
    from tracing import Traced, Tracings

pytestmark = pytest.mark.bpf
RUN_EAGER = 4  # record.h
POLL, SELECT, PSELECT6 = 7, 23, 270


def check_only_tasks(trace: Traced) -> None:
    """Check the truth, and that every byte is some task's that had to wait for it."""
    check_exact(trace)
    callbacks = [row for row in trace.awaits if row["kind"] == "callback"]
    found = Counter((row["tgid"], row["sent_bytes"], row["recv_bytes"]) for row in callbacks)
    early = trace.truth["early_rows"]
    assert found == Counter((row["tgid"], row["sent_bytes"], row["recv_bytes"]) for row in early)


@pytest.mark.parametrize("loop", LOOP_KINDS)
def test_two_loops_at_once(traced: Tracings, loop: str) -> None:
    """Two loops in two threads keep their tasks apart, each on its own thread."""
    trace = traced("loops.py", "threads", *on(loop))
    check_only_tasks(trace)
    threads = {
        label: {row["tid"] for row in trace.awaits if row["task_name"].startswith(label)}
        for label in ("loop0", "loop1")
    }
    assert [len(tids) for tids in threads.values()] == [1, 1]
    assert len(set.union(*threads.values())) == 2
    assert {task["loop"] for task in trace.tasks} == {1, 2}


def test_loops_again_and_again(traced: Tracings) -> None:
    """A descriptor is a loop's self-pipe as long as that loop lives, and then another file's."""
    trace = traced("loops.py", "again")
    check_only_tasks(trace)
    loops = trace.query("SELECT loop, self_fd, self_wfd FROM loop")
    assert len(loops) == 13
    pipes = {loop[end] for loop in loops for end in ("self_fd", "self_wfd")}
    used = {fd for row in trace.awaits for fd in row["fds"]}
    assert pipes & used  # what the test is about


@pytest.mark.parametrize("loop", LOOP_KINDS)
def test_forks(traced: Tracings, loop: str) -> None:
    """A process forked from a loop, even from inside a task, has tasks of its own."""
    trace = traced("loops.py", "fork", *on(loop))
    check_only_tasks(trace)
    targets = {target["tgid"]: target["agent"] for target in trace.info["targets"]}
    assert targets == dict.fromkeys(trace.truth["tgids"], "c")
    tgids = {task["task_id"]: task["tgid"] for task in trace.tasks}
    for task in trace.tasks:
        parent = task["parent_task_id"]
        assert parent is None or tgids[parent] == task["tgid"]
    assert Counter(tgids.values()).keys() == set(trace.truth["tgids"])


@pytest.mark.parametrize("version", EAGER_PYTHONS)
def test_eager_tasks(traced: Tracings, version: str) -> None:
    """What an eager first step sends is the new task's, and what its creator sends is its own."""
    trace = traced("loops.py", "eager", python=interpreter(version))
    check_only_tasks(trace)
    eager = trace.query(f"SELECT task, run FROM task WHERE flags & {RUN_EAGER} > 0")
    assert len(eager) > 30
    nested = trace.query(
        f"SELECT inside.id FROM step AS inside JOIN step AS outside"
        f" ON inside.waker_run = outside.run WHERE inside.flags & {RUN_EAGER} > 0"
        " AND inside.ts_ns >= outside.ts_ns AND inside.end_ns <= outside.end_ns"
    )
    assert len(nested) > 20


@pytest.mark.parametrize(
    ("mode", "calls"), [("poll", {POLL}), ("select", {SELECT, PSELECT6})], ids=["poll", "select"]
)
def test_other_selectors(traced: Tracings, mode: str, calls: set[int]) -> None:
    """A loop that waits in poll or select: its waits are those calls, and all else is the same."""
    trace = traced("loops.py", mode)
    check_only_tasks(trace)
    assert trace.query("SELECT count(*) AS n FROM epoll_wait") == [{"n": 0}]
    legs = trace.query(
        "SELECT leg.*, call.nr, call.ret, call.tid AS by_tid,"
        " call.ts_ns + call.dur_ns AS returned_ns"
        " FROM leg JOIN syscall AS call ON call.id = poll_id"
    )
    assert {leg["nr"] for leg in legs} <= calls
    polled = [row for row in trace.awaits if row["ended_by"]["type"] in {"recv", "timer", "thread"}]
    assert {leg["await_id"] for leg in legs} >= {row["await_id"] for row in polled}
    for leg in legs:
        assert leg["by_tid"] == leg["tid"]
        assert leg["ret"] >= 0
        assert leg["t5_ns"] == max(leg["returned_ns"], leg["t2_ns"])
        assert leg["t6_ns"] >= leg["t5_ns"]


def test_the_steps_name_the_call_in_which_the_loop_waits(traced: Tracings) -> None:
    """Step 10 is the call's return; which descriptor was ready is told by the receive alone."""
    trace = traced("loops.py", "poll")
    row = max(
        (row for row in trace.awaits_at("streams.py", "await self.reader.readexactly(")),
        key=lambda row: row["total_ns"],
    )
    step = trace.steps(row["await_id"])["steps"][9]
    assert step["what"] == "poll returns, the callback is ready"
    assert (step["status"], step["reason"]) == ("observed", "ready_not_listed")
    poll = step["evidence"][0]
    assert (poll["event"], poll["table"]) == ("poll", "syscall")
    assert poll["ret"] > 0
    assert poll["ts_ns"] + poll["dur_ns"] == step["start_ns"] + step["dur_ns"]


def test_what_libuv_calls_holds_the_loop(traced: Tracings) -> None:
    """A protocol's callback on uvloop that blocks is a hold of its own, told apart from tasks."""
    trace = traced("held_protocol.py")
    holds = trace.query("SELECT * FROM hold WHERE name = 'libuv' AND dur_ns > 25e6")
    held = trace.truth["held"]
    assert len(held) == 3
    for hold, (begin, end) in zip(holds, held, strict=True):
        assert (hold["kind"], hold["task_id"]) == ("callback", None)
        assert hold["start_ns"] <= begin <= end <= hold["start_ns"] + hold["dur_ns"]


def test_a_loop_run_inside_its_own_tasks(traced: Tracings) -> None:
    """What a step does after it has run its loop is its own, and the inner waits are the loop's."""
    trace = traced("loops.py", "inside")
    check_only_tasks(trace)
    calls = trace.awaits_at("streams.py", "await self.reader.readexactly(")
    assert len(calls) == 2 * 3 * 3 * 2
    inside = trace.query(
        "SELECT inner_.id FROM step AS inner_ JOIN step AS outer_ USING (tid, agent)"
        " WHERE inner_.ts_ns > outer_.ts_ns AND inner_.end_ns < outer_.end_ns"
    )
    assert len(inside) > 2 * 3 * 3
    for row in calls:
        assert "answer_before_suspend" not in row["reasons"]
        (leg,) = trace.legs(row["await_id"])
        assert (leg["epoll_id"] is None) != (leg["poll_id"] is None)
        assert leg["t2_ns"] < leg["t5_ns"] <= leg["t6_ns"]
