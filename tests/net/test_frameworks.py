"""Real frameworks and every kind of traffic, against what each await must have moved."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from coded_loads import LOADS, peers
from tracing import LOOP_KINDS, on
from verdict import verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coded_loads import Peers
    from tracing import Tracings

pytestmark = [pytest.mark.bpf, pytest.mark.slow]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peers]:
    """Give the servers that the loads need."""
    with peers(tmp_path_factory.mktemp("peers")) as made:
        yield made


def marked(name: str) -> object:
    """Return the load as a parameter."""
    marks = [pytest.mark.postgres] if "dsn" in LOADS[name].needs else []
    return pytest.param(name, marks=marks)


@pytest.mark.parametrize("loop", LOOP_KINDS)
@pytest.mark.parametrize("name", [marked(name) for name in LOADS])
def test_no_await_is_wrong(traced: Tracings, servers: Peers, name: str, loop: str) -> None:
    """Each await has its task's bytes; what is a guess has its reason."""
    trace = traced(f"{name}.py", *servers.options(LOADS[name]), *on(loop))
    said = verdict(trace)
    assert said.wrong == said.missing == []
    assert said.missed == []
    assert said.good
    guesses = [row for row in trace.awaits if row["attribution"] == "inferred"]
    assert all("last_sender" in row["reasons"] for row in guesses)


def test_requests_of_a_child_task_are_the_requests_await(traced: Tracings) -> None:
    """Where aiohttp lets a task of its own send a request, the row has that send and says so."""
    trace = traced("aiohttp_both.py")
    rows = [
        row
        for row in trace.awaits
        if row["task_name"].startswith("aiohttp-") and row["round_trips"]
    ]
    assert len(rows) >= len(trace.truth["waits"])
    sent = [row for row in rows if "sent_by_child" in row["reasons"]]
    assert len(sent) == len(trace.truth["waits"])
    for row in sent:
        assert "no_send" not in row["reasons"]


def test_both_ends_of_a_connection_moved_the_same(traced: Tracings) -> None:
    """What the client's tasks sent is what the tasks of the server's connections received."""
    moved = traced("aiohttp_both.py").query(
        """
        SELECT coroutine = 'RequestHandler.start' AS server, sum(sent_bytes) AS sent,
               sum(recv_bytes) AS recv FROM "await" GROUP BY 1 ORDER BY 1
        """
    )
    client, server = moved
    assert client["sent"] == server["recv"] > 0
    assert client["recv"] == server["sent"] > 0


def test_a_multiplexed_connections_bytes_are_complete(traced: Tracings) -> None:
    """Over HTTP/2 one task writes for others: the sum over all tasks is what was sent."""
    trace = traced("http2_streams.py")
    sent = sum(row["sent_bytes"] for row in trace.awaits if row["task_name"].startswith("h2-"))
    most = trace.truth["overhead"]["sent"] * len(trace.truth["waits"])
    assert trace.truth["total"] <= sent <= trace.truth["total"] + most


@pytest.mark.parametrize("loop", ["asyncio", "poll", "select"])
def test_an_await_on_a_pipe(traced: Tracings, loop: str) -> None:
    """It is of the kind of what was awaited, a child's or a stream's, and its reads are the proof.

    No packets carry its bytes, and the calls on a pipe that no loop watches are nobody's: not one
    that a step polls itself, nor one that got the number of one that was watched.
    """
    trace = traced("pipes.py", *on(loop))
    assert verdict(trace).good
    rows = trace.awaits_at("pipes.py", "await reader.readexactly(recv)")
    assert len(rows) >= len(trace.truth["waits"])
    for row in rows:
        kind = "subprocess" if row["task_name"].startswith("child-") else "future"
        assert (row["kind"], row["peer"], row["ended_by"]["type"]) == (kind, "pipe", "recv")
        assert "pipe" in row["reasons"]
        call = trace.one("syscall", row["ended_by"]["id"])
        assert (call["nr"], call["tid"]) == (0, row["tid"])
        assert call["fd"] in row["fds"]
    document = trace.steps(rows[-1]["await_id"])["steps"]
    assert {step["reason"] for step in document[3:9]} == {"pipe"}
    assert document[11]["status"] == "observed"
    loops = {task["tid"] for task in trace.tasks}
    theirs = trace.query(f"SELECT tid, ret FROM syscall WHERE sock > 0 AND sock < {1 << 33}")
    assert {row["tid"] for row in theirs} == loops
    assert not {row["ret"] for row in theirs} & set(trace.truth["nobodys"])


@pytest.mark.postgres
def test_psycopg_reads_in_its_task(traced: Tracings, servers: Peers) -> None:
    """In psycopg libpq receives after the task resumed: the row that just ended has the bytes."""
    trace = traced("psycopg_tasks.py", *servers.options(LOADS["psycopg_tasks"]))
    rows = trace.awaits_at("psycopg_tasks.py", "await connection.execute(")
    assert len(rows) == len(trace.truth["waits"])
    assert all("read_in_task" in row["reasons"] for row in rows)
