"""TLS handshakes that are not asyncio's own, against what the program noted around each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from shape_rows import subjects
from tracing import LOOP_KINDS, on

if TYPE_CHECKING:
    from tracing import Row, Traced, Tracings

pytestmark = pytest.mark.bpf


@pytest.fixture(params=LOOP_KINDS)
def trace(request: pytest.FixtureRequest, traced: Tracings, certificate: list[str]) -> Traced:
    """Give the trace of the handshakes on each loop."""
    return traced("handshakes.py", *certificate, *on(request.param))


def shaken(trace: Traced) -> dict[str, tuple[Row, Row]]:
    """Return by task each await's only handshake, with what the program said of it."""
    found = {}
    for row, wait in zip(subjects(trace), trace.truth["waits"], strict=True):
        (part,) = [part for part in row["setup"] if part["what"] == "handshake"]
        assert part["task_id"] == row["task_id"]
        found[wait["task"]] = (part, wait)
    return found


def end(part: Row) -> int:
    """Return when a part ended."""
    return int(part["start_ns"] + part["dur_ns"])


def test_times_and_outcomes(trace: Traced) -> None:
    """A handshake is within what the program noted around its calls, and ends as they did."""
    for part, wait in shaken(trace).values():
        told = wait["handshake"]
        assert part["outcome"] == told["outcome"], wait
        assert told["start_ns"] <= part["start_ns"] < end(part) <= told["end_ns"], wait


def test_two_at_a_time(trace: Traced) -> None:
    """Of two at a time the one that the peer held is around the other."""
    found = shaken(trace)
    for way in ("by_anyio", "by_start_tls"):
        (held, _), (free, _) = found[f"held-{way}"], found[f"free-{way}"]
        assert held["start_ns"] < free["start_ns"] < end(free) < end(held)


def test_evidence(trace: Traced) -> None:
    """The calls are of one handshake; hello and the last answer of the client's own socket."""
    for part, wait in shaken(trace).values():
        first, hello, answer = [
            trace.one(proof["table"], proof["id"]) for proof in part["evidence"]
        ]
        calls = f"SELECT * FROM handshake WHERE tls = {first['tls']} ORDER BY ts_ns"
        *_, last = trace.query(calls)
        assert (first["ts_ns"], last["end_ns"]) == (part["start_ns"], end(part))
        assert first["end_ns"] < hello["ts_ns"] < answer["ts_ns"] < last["ts_ns"], wait
        for call in (hello, answer):
            ports = trace.query(f"SELECT DISTINCT lport FROM socket WHERE sock = {call['sock']}")
            assert wait["port"] in {row["lport"] for row in ports}, wait
