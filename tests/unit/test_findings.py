"""The page's findings: each shows up at its threshold, not below it, and names its own evidence."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tracer.correlate.trace import Trace, open_trace
from tracer.report.page.connections import CONNECTS, SET_UP
from tracer.report.page.findings import (
    ALONE_NS,
    HIDDEN_RECEIVES,
    REPEATED,
    TOGETHER,
    findings,
)
from tracer.system.syscalls import NUMBER

if TYPE_CHECKING:
    from collections.abc import Iterator

    Row = dict[str, Any]

RECORDED = Path(__file__).resolve().parents[1] / "data" / "trace"
MS = 1_000_000
SYN_SENT, ESTABLISHED = 2, 1  # include/net/tcp_states.h
TABLES = ("await", "task_total", "socket_state", "retransmit", "syscall", "step", "setup")


@pytest.fixture(scope="module")
def emptied(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    """Give a trace whose tables have their true columns, but no rows."""
    folder = tmp_path_factory.mktemp("findings") / "made.trace"
    shutil.copytree(RECORDED, folder)
    trace = open_trace(folder, folder)
    for name in TABLES:
        trace.connection.execute(f'CREATE TABLE "new" AS FROM "{name}" LIMIT 0')
        trace.connection.execute(f'DROP VIEW "{name}"; ALTER TABLE "new" RENAME TO "{name}"')
    return trace


@pytest.fixture
def trace(emptied: Trace) -> Iterator[Trace]:
    """Give the trace without rows."""
    yield emptied
    for name in TABLES:
        emptied.connection.execute(f'DELETE FROM "{name}"')


def put(trace: Trace, table: str, **values: object) -> None:
    """Add a row; columns that are not named are NULL."""
    named = ", ".join(f'${key} AS "{key}"' for key in values)
    trace.connection.execute(f'INSERT INTO "{table}" BY NAME SELECT {named}', values)


def put_awaits(trace: Trace, *rows: Row) -> None:
    """Add awaits of a millisecond, one after the other, of task 1 on socket 1 but for `rows`."""
    (known,) = trace.rows('SELECT count(*) AS n FROM "await"')
    for number, row in enumerate(rows, known["n"] + 1):
        total_ns = row.get("total_ns", MS)
        begin = number * 1000 * MS
        common = {"await_id": number, "task_id": 1, "where": "/app/a.py:1", "kind": "socket"}
        common |= {"sock": 1, "sent_bytes": 50, "round_trips": 1, "total_ns": total_ns}
        put(trace, "await", **common | {"start_ns": begin, "end_ns": begin + total_ns} | row)


def hold(cause: str, where: str, delayed_ns: int, await_id: int = 1) -> Row:
    """Return a row of `blocking` with what the findings read."""
    waited = [{"await_id": await_id, "delay_ns": delayed_ns}] if delayed_ns else []
    row = {"cause": cause, "where": where, "name": None, "coroutine": "c", "ran": [], "dur_ns": MS}
    return row | {"waited": waited, "delayed_awaits": len(waited), "delayed_ns": delayed_ns}


def titles(trace: Trace, *holds: Row) -> list[str]:
    """Return the titles of what is found."""
    return [one["title"] for one in findings(trace, list(holds))]


def test_nothing_stands_out_in_nothing(trace: Trace) -> None:
    """An empty trace has no findings, nor has one with a hold that delayed nobody."""
    assert titles(trace) == []
    assert titles(trace, hold("on_cpu", "/app/a.py:9", 0)) == []


def test_a_held_loop_names_its_own_evidence(trace: Trace) -> None:
    """Two culprits of one cause: each finding's await is one that its own hold delayed."""
    put_awaits(trace, {"total_ns": 1000 * MS})
    holds = [hold("on_cpu", "/app/a.py:9", 400 * MS, 7), hold("on_cpu", "/app/b.py:3", 60 * MS, 8)]
    found = findings(trace, holds)
    assert [(one["where"], one["await_id"]) for one in found] == [
        ("/app/a.py:9", 7),
        ("/app/b.py:3", 8),
    ]
    assert "once" in found[0]["text"]
    assert "1 await waited 400.0 ms" in found[0]["text"]


def test_a_held_loop_from_a_share_on(trace: Trace) -> None:
    """A twentieth of all await time is the threshold; others' use of the CPU is no culprit."""
    put_awaits(trace, {"total_ns": 1000 * MS})
    assert titles(trace, hold("on_cpu", "/app/a.py:9", 50 * MS)) == [
        "The loop was held by app/a.py:9"
    ]
    assert titles(trace, hold("on_cpu", "/app/a.py:9", 50 * MS - 1)) == []
    assert titles(trace, hold("preempted", "/app/a.py:9", 500 * MS)) == []


def test_many_that_are_nobodys_fault_hide_no_culprit(trace: Trace) -> None:
    """Long holds that delayed nobody do not take the places of those that did."""
    put_awaits(trace, {"total_ns": 1000 * MS})
    idle = [hold("blocked", f"/app/idle.py:{n}", 0) | {"dur_ns": 900 * MS} for n in range(5)]
    assert titles(trace, *idle, hold("on_cpu", "/app/a.py:9", 90 * MS)) == [
        "The loop was held by app/a.py:9"
    ]


@pytest.mark.parametrize("kind", ["queue", "lock"])
def test_waiting_in_line(trace: Trace, kind: str) -> None:
    """A tenth of all await time on a queue or a lock."""
    put_awaits(trace, {"total_ns": 900 * MS}, {"kind": kind, "leaf": "get", "total_ns": 100 * MS})
    (found,) = findings(trace, [])
    assert (found["title"], found["await_id"]) == ("Tasks wait in line at app/a.py:1", 2)
    put_awaits(trace, {"total_ns": MS})
    assert titles(trace) == []


@pytest.mark.parametrize(
    ("column", "who"),
    [("runq_ns", "The run queue"), ("throttled_ns", "The CPU quota"), ("gil_ns", "The GIL")],
)
def test_off_the_cpu(trace: Trace, column: str, who: str) -> None:
    """A tenth of all await time; the await is the one that lost most."""
    put_awaits(
        trace, {"total_ns": 900 * MS, column: 40 * MS}, {"total_ns": 100 * MS, column: 60 * MS}
    )
    (found,) = findings(trace, [])
    assert (found["title"], found["await_id"]) == (f"{who} took 10% of all await time", 2)
    put_awaits(trace, {"total_ns": MS})
    assert titles(trace) == []


def test_equal_queries_in_a_row(trace: Trace) -> None:
    """Ten from one line with equal sizes; a different size, line or task ends the row."""
    put_awaits(trace, *[{}] * (REPEATED - 1))
    assert titles(trace) == []
    put_awaits(trace, {"sent_bytes": 51}, {"where": "/app/a.py:2"}, {"task_id": 2}, {})
    assert titles(trace) == []
    put_awaits(trace, *[{}] * (REPEATED - 1))
    (found,) = findings(trace, [])
    assert found["title"] == "Candidate for one query instead of many: app/a.py:1"
    assert f"up to {REPEATED} in a row" in found["text"]


def test_two_after_each_other_on_two_connections(trace: Trace) -> None:
    """Five pairs on different connections; on one connection a query has to wait its turn."""
    pairs = [
        ({"sock": 2 * n}, {"sock": 2 * n + 1, "where": "/app/b.py:2"}) for n in range(TOGETHER)
    ]
    for task, (first, second) in enumerate(pairs[:-1]):
        put_awaits(trace, first | {"task_id": task}, second | {"task_id": task})
    same = {"task_id": TOGETHER, "sock": 99}
    put_awaits(trace, same, same | {"where": "/app/b.py:2"})
    assert titles(trace) == []
    first, second = ({**one, "task_id": TOGETHER + 1} for one in pairs[-1])
    put_awaits(trace, first, second)
    (found,) = findings(trace, [])
    assert found["title"] == "Candidate for gather: app/a.py:1 and app/b.py:2"
    assert f"up to {TOGETHER}.0 ms" in found["text"]


def test_a_connection_for_each_task(trace: Trace) -> None:
    """Twenty that were opened by twenty tasks; a pool's twenty for more tasks are none."""
    for n in range(CONNECTS):
        put_awaits(trace, {"task_id": n, "sock": n})
        if n < CONNECTS - 1:
            put(trace, "socket_state", sock=n, oldstate=SYN_SENT, newstate=ESTABLISHED)
    assert titles(trace) == []
    put(trace, "socket_state", sock=CONNECTS - 1, oldstate=SYN_SENT, newstate=ESTABLISHED)
    assert titles(trace) == ["A connection is opened for almost every task"]
    put_awaits(trace, *({"task_id": CONNECTS + n} for n in range(CONNECTS)))
    assert titles(trace) == []


def put_setup(trace: Trace, await_id: int, *parts: tuple[str, int, int]) -> None:
    """Add parts of an await's set-up: what, begin and end in ms of the await."""
    (row,) = trace.rows('SELECT task_id, start_ns FROM "await" WHERE await_id = $1', await_id)
    for what, begin, end in parts:
        times = {"start_ns": row["start_ns"] + begin * MS, "dur_ns": (end - begin) * MS}
        put(trace, "setup", await_id=await_id, task_id=row["task_id"], what=what, **times)


def test_a_connection_each_time(trace: Trace) -> None:
    """Ten awaits of a line that spend a third on it, what goes on at once counted once."""
    common = {"total_ns": 10 * MS, "task_id": None, "sent_bytes": 0}
    put_awaits(trace, *(common | {"task_id": n} for n in range(SET_UP)))
    for number in range(1, SET_UP):
        put_setup(trace, number, ("resolve", 0, 1), ("connect", 1, 2), ("handshake", 2, 4))
    assert titles(trace) == []
    put_setup(trace, SET_UP, ("connect", 1, 4), ("connect", 2, 3))
    (found,) = findings(trace, [])
    assert found["title"] == "A connection is opened each time at app/a.py:1"
    assert (found["cost_ns"], found["await_id"]) == ((4 * (SET_UP - 1) + 3) * MS, 1)
    assert "3.9 ms of 10.0 ms" in found["text"]
    put_awaits(trace, *([common | {"task_id": 99, "total_ns": 0}] * SET_UP))
    assert titles(trace) == []  # now half of the line's awaits have their connection


def test_a_connection_that_takes_little(trace: Trace) -> None:
    """Less than a third of a line's time is none, nor is what a server does for its clients."""
    put_awaits(trace, *({"total_ns": 10 * MS, "task_id": n} for n in range(SET_UP)))
    for number in range(1, SET_UP + 1):
        put_setup(trace, number, ("handshake", 0, 9))
    assert titles(trace) == []
    for number in range(1, SET_UP + 1):
        trace.connection.execute("DELETE FROM setup WHERE await_id = $1", [number])
        put_setup(trace, number, ("connect", 0, 2))
    assert titles(trace) == []


def test_a_connection_of_a_child_counts_once(trace: Trace) -> None:
    """Where a task waits for another one to connect, the line of the one that waits is named."""
    for n in range(SET_UP):
        child = {"task_id": 100 + n, "total_ns": 4 * MS, "where": "/lib/c.py:9"}
        put_awaits(trace, {"task_id": n, "total_ns": 5 * MS}, child)
        put_setup(trace, 2 * n + 2, ("connect", 0, 3))
        trace.connection.execute(
            "INSERT INTO setup BY NAME SELECT * REPLACE ($1 AS await_id) FROM setup"
            " WHERE await_id = $1 + 1",
            [2 * n + 1],
        )
    assert titles(trace) == ["A connection is opened each time at app/a.py:1"]


def test_a_task_that_never_yields(trace: Trace) -> None:
    """A tenth of a second on a CPU without one await."""
    task = {"task_name": "T", "coroutine": "spin"}
    put(trace, "task_total", **task, awaits=0, cpu_ns=ALONE_NS - 1)
    put(trace, "task_total", **task, awaits=1, cpu_ns=9 * ALONE_NS)
    assert titles(trace) == []
    put(trace, "task_total", **task, awaits=0, cpu_ns=ALONE_NS)
    assert titles(trace) == ["Task T never yields"]


def test_packets_sent_again(trace: Trace) -> None:
    """Any; the await is the longest that lasted while its socket sent again."""
    other = {"sock": 2, "start_ns": 1000 * MS, "end_ns": 1050 * MS, "total_ns": 50 * MS}
    put_awaits(trace, {"total_ns": 9 * MS}, {}, other)
    put(trace, "retransmit", sock=1, ts_ns=1000 * MS + 1)
    put(trace, "retransmit", sock=1, ts_ns=2000 * MS + 1)
    (found,) = findings(trace, [])
    assert (found["title"], found["await_id"]) == ("2 packets were sent again", 1)
    assert "on 1 connection:" in found["text"]
    trace.connection.execute("UPDATE retransmit SET ts_ns = 1")
    assert findings(trace, [])[0]["await_id"] is None


def test_the_costliest_comes_first(trace: Trace) -> None:
    """Findings are in the order of the time at stake."""
    put_awaits(trace, {"total_ns": 800 * MS}, {"kind": "lock", "leaf": "l", "total_ns": 200 * MS})
    costs = [one["cost_ns"] for one in findings(trace, [hold("on_cpu", "/app/a.py:9", 500 * MS)])]
    assert costs == [500 * MS, 200 * MS]


@pytest.mark.parametrize(
    ("calls", "receives", "tid", "found"),
    [(1, 0, 1, True), (0, 0, 1, False), (1, -1, 1, False), (1, 0, 2, False)],
)
def test_hidden_calls(trace: Trace, calls: int, receives: int, tid: int, *, found: bool) -> None:
    """Memory calls count beside receives, in threads of loops only."""
    put(trace, "step", id=0, tid=1)
    for number in range(HIDDEN_RECEIVES + receives):
        put(trace, "syscall", id=number, tid=tid, nr=NUMBER["recvfrom"], sock=7, ret=5, dur_ns=9)
        if calls:
            put(trace, "syscall", id=number, tid=tid, nr=NUMBER["munmap"], sock=0, ret=0, dur_ns=MS)
    titles = [one["title"] for one in findings(trace, [])]
    assert titles == (["1.0 hidden system calls for each receive"] if found else [])
