"""How long a loop's ready queue was, slice by slice."""

from __future__ import annotations

import duckdb

from tracer.correlate.trace import Trace
from tracer.report.page.document import ready_queues


def queues(*steps: tuple[int, int, int]) -> dict[int, int]:
    """Return the queues in slices of 10 ns of steps (tid, woken, begun)."""
    trace = Trace.__new__(Trace)
    trace.connection = duckdb.connect()
    trace.connection.execute("CREATE TABLE step (tid INT, wake_ns BIGINT, ts_ns BIGINT)")
    for step in steps:
        trace.connection.execute("INSERT INTO step VALUES (?, ?, ?)", step)
    return ready_queues(trace, 100, 10)


def test_a_held_loop_keeps_its_queue() -> None:
    """Two tasks wait from the first slice on until the loop is free in the fourth."""
    assert queues((1, 101, 135), (1, 105, 137)) == {0: 2, 1: 2, 2: 2, 3: 2}


def test_an_empty_queue_between() -> None:
    """Nothing is ready in the second slice; a step that nobody woke counts nowhere."""
    assert queues((1, 101, 102), (1, 121, 123), (1, 0, 150)) == {0: 1, 1: 0, 2: 1}


def test_each_loop_has_its_own() -> None:
    """Two loops with one ready task each are no queue of two."""
    assert queues((1, 101, 115), (2, 101, 125)) == {0: 1, 1: 1, 2: 1}
