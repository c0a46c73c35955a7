"""Several loops: at once, one after the other, in forked processes, and with eager tasks."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest
from exact import check_exact
from tracing import EAGER_PYTHONS, interpreter

if TYPE_CHECKING:
    from tracing import Traced, Tracings

pytestmark = pytest.mark.bpf
RUN_EAGER = 4  # record.h


def check_only_tasks(trace: Traced) -> None:
    """Check the truth, and that every byte is some task's."""
    check_exact(trace)
    assert not [row for row in trace.awaits if row["kind"] == "callback"]


def test_two_loops_at_once(traced: Tracings) -> None:
    """Two loops in two threads keep their tasks apart, each on its own thread."""
    trace = traced("loops.py", "threads")
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


def test_forks(traced: Tracings) -> None:
    """A process forked from a loop, even from inside a task, has tasks of its own."""
    trace = traced("loops.py", "fork")
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
