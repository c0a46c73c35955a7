"""epoll_ctl by io_uring: every registration is in the trace, whichever way it was asked for."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tracing import Traced, Tracings

pytestmark = pytest.mark.bpf
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def asked(traced: Tracings) -> Traced:
    """Give the trace of uring.py."""
    trace = traced(HERE / "uring.py", level=1)
    if "refused" in trace.truth:
        pytest.skip(f"no io_uring here: {trace.truth['refused']}")
    return trace


def test_each_request_is_a_registration(asked: Traced) -> None:
    """What was asked for, in its order, with its result; failed ones too."""
    rows = asked.query("SELECT * FROM epoll_ctl ORDER BY id")
    told = [[row["op"], row["fd"], row["events"], row["ret"]] for row in rows]
    wanted = asked.truth["requests"]
    assert told == wanted
    assert {row["epfd"] for row in rows} == {asked.truth["epfd"]}
    assert {row["tid"] for row in rows} == {asked.truth["tgid"]}
    assert all(row["io_uring"] == 1 for row in rows)
    (probe,) = [p for p in asked.info["probes"] if p["hook"] == "io_uring_complete"]
    assert probe["rung"] == "raw_tracepoint"


def test_a_request_lies_in_its_system_call(asked: Traced) -> None:
    """Many requests are carried out by one io_uring_enter, and begin with it."""
    calls = asked.query("SELECT ts_ns, ts_ns + dur_ns AS end_ns FROM syscall WHERE nr = 426")
    rows = asked.query("SELECT ts_ns, ts_ns + dur_ns AS end_ns FROM epoll_ctl")
    assert len(calls) == 5
    for row in rows:
        (call,) = [call for call in calls if call["ts_ns"] == row["ts_ns"]]
        assert row["ts_ns"] < row["end_ns"] <= call["end_ns"]
    assert sorted(Counter(row["ts_ns"] for row in rows).values()) == [1, 1, 1, 2, 2]


def test_the_socket_is_known(asked: Traced) -> None:
    """A registration names its socket, and that of a descriptor which is none has none."""
    rows = asked.query("SELECT fd, sock FROM epoll_ctl")
    (server,) = {row["sock"] for row in rows if row["fd"] == asked.truth["server"]}
    assert asked.query(f"SELECT DISTINCT family FROM socket WHERE sock = {server}") == [
        {"family": 2}
    ]
    assert {row["sock"] for row in rows if row["fd"] == asked.truth["eventfd"]} == {0}


def test_what_an_epoll_watches_is_recorded(asked: Traced) -> None:
    """Reads and writes of a descriptor that was registered through io_uring are in the trace."""
    eventfd = asked.truth["eventfd"]
    rows = asked.query(f"SELECT nr, ret FROM syscall WHERE fd = {eventfd} AND nr < 2 ORDER BY id")
    assert [(row["nr"], row["ret"]) for row in rows] == [(1, 8), (0, 8)]


def test_a_system_call_says_its_events(traced: Tracings) -> None:
    """A plain epoll_ctl says that it is one, and the events that it asked for."""
    rows = traced(HERE / "calls.py").query(
        "SELECT op, io_uring, events, count(*) AS n FROM epoll_ctl GROUP BY ALL ORDER BY op"
    )
    assert [(row["op"], row["io_uring"], row["events"]) for row in rows[:1]] == [(1, 0, 1)]
    assert [row["n"] for row in rows] == [997, 997]


def test_uvloops_registrations_are_complete(traced: Tracings) -> None:
    """Every descriptor that an epoll_wait of uvloop's returned was registered before."""
    trace = traced(HERE / "uv_echo.py", level=1)
    unknown = trace.query(
        "SELECT w.ts_ns, w.fd FROM (SELECT ts_ns + dur_ns AS ts_ns, epfd, unnest(fds) AS fd"
        " FROM epoll_wait) AS w WHERE NOT EXISTS (FROM epoll_ctl AS c WHERE c.epfd = w.epfd"
        " AND c.fd = w.fd AND c.op = 1 AND c.ret = 0 AND c.ts_ns < w.ts_ns)"
    )
    assert unknown == []
    by_ring = trace.query(
        "SELECT count(DISTINCT sock) AS n FROM epoll_ctl WHERE io_uring = 1 AND op = 1 AND ret = 0"
    )[0]["n"]
    assert (by_ring > 7) == trace.truth["io_uring"]  # each client and its server
