"""Name resolution, connect and TLS handshake of awaits, against what the program noted of them."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from shape_rows import subjects

if TYPE_CHECKING:
    from tracing import Row, Traced, Tracings

pytestmark = pytest.mark.bpf
ESTABLISHED = 1  # include/net/tcp_states.h


@pytest.fixture
def trace(traced: Tracings, certificate: list[str]) -> Traced:
    """Give the trace of all ways to open a connection."""
    return traced("setups.py", *certificate)


def noted(trace: Traced) -> list[tuple[Row, Row]]:
    """Return each await's row with what the program said of it."""
    return list(zip(subjects(trace), trace.truth["waits"], strict=True))


def end(part: Row) -> int:
    """Return when a part ended."""
    return int(part["start_ns"] + part["dur_ns"])


def test_parts_and_outcomes(trace: Traced) -> None:
    """Each await has the parts that it did, in their order; one with a connection has none."""
    whats = set()
    for row, wait in noted(trace):
        found = [(part["what"], part["outcome"]) for part in row["setup"]]
        assert found == [(part["what"], part["outcome"]) for part in wait["parts"]], wait["what"]
        whats |= set(found)
    assert whats >= {
        ("resolve", "result"),
        ("connect", "result"),
        ("connect", "exception"),
        ("handshake", "result"),
        ("handshake", "exception"),
    }


def test_times(trace: Traced) -> None:
    """A part's times fit to what the program noted of it, and no part overlaps another."""
    for row, wait in noted(trace):
        for part, told in zip(row["setup"], wait["parts"], strict=True):
            if part["what"] == "connect":
                assert told["start_ns"] <= part["start_ns"] < end(part)
            elif part["what"] == "handshake":
                assert told["start_ns"] <= part["start_ns"] < end(part) <= told["end_ns"]
            else:
                assert part["start_ns"] <= told["start_ns"] < told["end_ns"] <= end(part)
        bounds = [(row["start_ns"], row["start_ns"])]
        bounds += [(part["start_ns"], end(part)) for part in row["setup"]]
        bounds.append((row["end_ns"], row["end_ns"]))
        assert all(before[1] <= after[0] for before, after in pairwise(bounds)), row


def test_evidence(trace: Traced) -> None:
    """Each part names the events that prove it; connect and handshake are of one socket."""
    proofs = {"resolve": ["work"], "connect": ["syscall", "socket_state"]}
    proofs["handshake"] = ["handshake", "syscall", "syscall"]
    for row, _wait in noted(trace):
        (await_,) = trace.query(f'SELECT sock FROM "await" WHERE await_id = {row["await_id"]}')
        for part in row["setup"]:
            events = [trace.one(proof["table"], proof["id"]) for proof in part["evidence"]]
            assert [proof["table"] for proof in part["evidence"]] == proofs[part["what"]]
            for proof, event in zip(part["evidence"], events, strict=True):
                assert (proof["ts_ns"], proof["tid"]) == (event["ts_ns"], event["tid"])
            if part["what"] == "connect":
                assert part["evidence"][0]["event"] == "connect"
                assert end(part) == events[1]["ts_ns"]
                good = events[1]["newstate"] == ESTABLISHED
                assert good == (part["outcome"] == "result")
            if part["outcome"] == "result" and row["kind"] == "socket":
                assert {event["sock"] for event in events if "sock" in event} <= {await_["sock"]}


def test_whose_it_is(trace: Traced) -> None:
    """A part names the task that did it: the await's own, or the one it waited for."""
    for row, wait in noted(trace):
        task = trace.task_id(wait.get("by", wait["task"]))
        assert {part["task_id"] for part in row["setup"]} <= {task}


def test_a_servers_handshake(traced: Tracings, certificate: list[str]) -> None:
    """Of a connection over TLS both ends have the handshake: who connects, and who accepts."""
    trace = traced("tls_streams.py", *certificate)
    whats = Counter(
        (row["coroutine"].rpartition(".")[2], *(part["what"] for part in row["setup"]))
        for row in trace.awaits
        if row["setup"]
    )
    assert whats == {
        ("several", "connect", "handshake"): 8,
        ("_accept_connection2", "handshake"): 8,
    }


def test_on_uvloop(traced: Tracings, certificate: list[str]) -> None:
    """Its own TLS shakes hands between the first hello and the receive that ended the await."""
    trace = traced("tls_streams.py", *certificate, "--loop", "uvloop")
    rows = [row for row in trace.awaits if row["setup"]]
    assert len(rows) == 8
    for row in rows:
        connect, handshake = row["setup"]
        assert (connect["what"], handshake["what"]) == ("connect", "handshake")
        assert end(connect) <= handshake["start_ns"] < end(handshake) <= row["end_ns"]
        begun, hello, answer = [
            trace.one(proof["table"], proof["id"]) for proof in handshake["evidence"]
        ]
        assert begun["ts_ns"] == handshake["start_ns"] < begun["end_ns"] < hello["ts_ns"]
        assert hello["ret"] > 200 < answer["ret"]
        assert hello["sock"] == answer["sock"]
        assert answer["ts_ns"] < end(handshake)
    plain = traced("streams.py", "--loop", "uvloop")
    whats = {part["what"] for row in plain.awaits for part in row["setup"]}
    assert whats == {"connect"}


@pytest.mark.parametrize("client", ["httpx", "aiohttp"])
def test_first_requests_of_a_pool(traced: Tracings, client: str) -> None:
    """The requests that open the pool's four connections have the connects, also a child task's."""
    trace = traced({"httpx": "httpx_pool.py", "aiohttp": "aiohttp_both.py"}[client])
    rows = [row for row in trace.awaits if row["task_name"].startswith(f"{client}-")]
    parts = [part for row in rows for part in row["setup"]]
    assert [(part["what"], part["outcome"]) for part in parts] == [("connect", "result")] * 4
    assert len({part["evidence"][0]["id"] for part in parts}) == 4
