"""The rows of a shape's awaits, and what every test of a shape asks of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tracing import STAGES

if TYPE_CHECKING:
    from tracing import Row, Traced

MS = 1_000_000
RUN_TIMER = 1  # record.h


def subjects(trace: Traced) -> list[Row]:
    """Return the rows of the awaits that the app noted: exactly one for each of its notes."""
    rows = []
    for wait in trace.truth["waits"]:
        inside = [
            row
            for row in trace.awaits
            if row["task_name"] == wait["task"]
            and row["suspend_ns"] > wait["start_ns"] >= row["start_ns"]
            and (wait["outcome"] == "open" or row["end_ns"] <= wait["end_ns"])
        ]
        assert len(inside) == 1, wait
        rows += inside
    assert len(rows) == trace.truth["count"]
    assert all(row["attribution"] == "exact" for row in rows)
    return rows


def stages(row: Row) -> dict[str, Any]:
    """Return the stages without their unit."""
    return {name: row["stages"][f"{name}_ns"] for name in STAGES}


def unknown(row: Row) -> set[str]:
    """Return the stages that have no value."""
    return {name for name, value in stages(row).items() if value is None}


def lag_ns(row: Row) -> int:
    """Return how long the answer was here and the task not running."""
    return sum(stages(row)[name] or 0 for name in ("wake", "queue", "resume"))


def check_ended(trace: Traced, row: Row, by: str) -> Row | None:
    """Check that `ended_by` names the event that made the task ready, and return it."""
    assert row["ended_by"]["type"] == by
    leg = trace.legs(row["await_id"])[-1]
    if by in {"recv", "write"}:
        call = trace.one("syscall", row["ended_by"]["id"])
        assert call["sock"] == leg["sock"]
        assert call["tid"] == row["tid"]
        if "read_in_task" not in row["reasons"]:
            assert call["ts_ns"] == leg["t6_ns"]
        return call
    if by in {"callback", "timer"}:
        run = trace.one("callback", row["ended_by"]["id"])
        assert run["ts_ns"] <= leg["t7_ns"] <= run["end_ns"]
        return run
    return None


def check_woken_by(trace: Traced, row: Row, task: str, by: str = "task") -> None:
    """Check that a task's step made this one ready: nothing lies between but the ready queue."""
    assert row["ended_by"] == {"type": by, "id": trace.task_id(task)}
    (leg,) = trace.legs(row["await_id"])
    assert len({leg[f"t{n}_ns"] for n in range(3, 8)}) == 1
    waker = trace.query(
        f"SELECT step.* FROM step JOIN task USING (task) WHERE name = '{task}'"
        f" AND {leg['t7_ns']} BETWEEN step.ts_ns AND step.end_ns"
    )
    assert len(waker) == 1
    assert stages(row)["resume"] > 0
    assert row["reasons"] == []


def check_round_trip(trace: Traced, row: Row, wait: Row) -> None:
    """Check bytes and outcome of a request and its answer."""
    assert (row["kind"], row["outcome"]) == ("socket", "result")
    assert (row["sent_bytes"], row["recv_bytes"]) == (wait["sent_bytes"], wait["recv_bytes"])
    assert row["round_trips"] == wait.get("round_trips", 1)
    for stage in ("prepare", "send", "remote", "wake", "queue"):
        assert stages(row)[stage] > 0, stage
    check_ended(trace, row, "recv")


def check_caused_by(trace: Traced, row: Row, task: str, by: str = "task") -> None:
    """Check that a task's step was the cause; its callbacks or victims made this one ready."""
    assert row["ended_by"] == {"type": by, "id": trace.task_id(task)}
    leg = trace.legs(row["await_id"])[-1]
    assert leg["t3_ns"] == leg["t4_ns"] == leg["t5_ns"] <= leg["t6_ns"] <= leg["t7_ns"]
    step = trace.one("step", leg["waker_step_id"])
    (name,) = trace.query(f"SELECT name FROM task WHERE task = {step['task']}")
    assert name["name"] == task
    assert step["ts_ns"] <= leg["t4_ns"] <= step["end_ns"]
    assert not unknown(row)
    assert row["reasons"] == []
