"""Bytes that uvloop's streams keep back: whose they are, before 0.23 and since."""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from coded_loads import LOADS, peers
from verdict import verdict

from tests.unit.agent_ring import Lab
from tests.unpacked import PLACE, install, make_environment
from tracer import agent

if TYPE_CHECKING:
    from pathlib import Path

    from tracing import Row, Traced, Tracings

pytestmark = [pytest.mark.bpf, pytest.mark.slow]
OLD = "0.21.0"
UVLOOP = ("--loop", "uvloop")
# the last handle of a loop iteration is uvloop's own; then a stream sends, and closes
LEAVING = """
import asyncio, socket, uvloop
class Told(asyncio.Protocol):
    def __init__(self):
        self.lost = asyncio.get_running_loop().create_future()
    def connection_lost(self, error):
        self.lost.set_result(None)
async def leave(transport):
    transport.write(b"bye")
    transport.close()
async def connected(loop, kind):
    mine, other = socket.socketpair()
    mine.setblocking(False)
    return other, *await loop.create_connection(kind, sock=mine)
async def main():
    loop = asyncio.get_running_loop()
    other, transport, protocol = await connected(loop, Told)
    task = asyncio.create_task(leave(transport))
    another, second, _ = await connected(loop, asyncio.Protocol)
    await protocol.lost
    second.close()
uvloop.run(main())
"""


@pytest.fixture(scope="module")
def old() -> str:
    """Return an interpreter like ours that has a uvloop of before 0.23."""
    folder = PLACE / f"uvloop-{OLD}-{sys.version_info.major}.{sys.version_info.minor}"
    inside = folder / "bin" / "python"
    if not any(folder.glob("lib/python*/site-packages/uvloop")):
        assert install(make_environment(sys.executable, folder), f"uvloop=={OLD}")
    return str(inside)


def interpreter(old: str, which: str) -> str:
    """Return the interpreter with the old or the newest uvloop."""
    return {"old": old, "new": sys.executable}[which]


@pytest.mark.parametrize("which", ["old", "new"])
def test_each_writer_has_its_bytes(traced: Tracings, old: str, which: str) -> None:
    """Tasks that share a queue have their own bytes each, what callbacks write is no task's."""
    trace = traced("kept_back.py", *UVLOOP, python=interpreter(old, which))
    said = verdict(trace)
    assert said.wrong == said.missing == []
    assert said.good
    assert said.inferred == said.unattributed == 0
    alone = Counter(row["sent_bytes"] for row in trace.awaits if row["kind"] == "callback")
    del alone[0]
    assert alone == Counter(trace.truth["answers"])


def test_tls(traced: Tracings, old: str, tmp_path: Path) -> None:
    """What TLS makes of a task's bytes is that task's."""
    with peers(tmp_path) as made:
        options = made.options(LOADS["tls_streams"])
        trace = traced("tls_streams.py", *options, *UVLOOP, python=old)
    said = verdict(trace)
    assert said.wrong == said.missing == said.missed == []
    assert said.good
    assert said.unattributed == 0


def rows_of(trace: Traced, what: str) -> list[Row]:
    """Return the noted awaits of a kind."""
    return [
        row
        for row in trace.awaits_at("kept_back.py", "await future")
        if row["task_name"].startswith(what)
    ]


def test_one_send_for_several_tasks(traced: Tracings, old: str) -> None:
    """The send comes after all their steps; each row names it, with its own bytes and why."""
    trace = traced("kept_back.py", *UVLOOP, python=old)
    sends = Counter()
    for row in rows_of(trace, "shared"):
        assert {"buffered_write", "send_shared"} <= set(row["reasons"])
        (leg,) = trace.legs(row["await_id"])
        call = trace.one("syscall", leg["send_id"])
        assert call["task"] == 0
        assert leg["t1_ns"] == call["ts_ns"] > row["suspend_ns"] == leg["parked_ns"]
        assert leg["t2_ns"] == call["ts_ns"] + call["dur_ns"]
        sends[call["id"], call["ret"]] += row["sent_bytes"]
    assert len(sends) == 5
    assert all(sent == total for (_, total), sent in sends.items())


def test_a_full_socket(traced: Tracings) -> None:
    """What a socket had no room for is its writer's, whoever's bytes go with it."""
    rows = rows_of(traced("kept_back.py", *UVLOOP), "late")
    assert len(rows) == 4
    assert all("buffered_write" in row["reasons"] for row in rows[1:])
    assert any("send_shared" in row["reasons"] for row in rows)


def test_the_last_handle_is_over_when_streams_send(old: str, tmp_path: Path) -> None:
    """What is scheduled by a send after the loop's handles is not the last one's doing."""
    assert agent.prebuild(old, tmp_path / "cache") is None
    lab = Lab(old, tmp_path, tmp_path / "cache", light=False)
    lab.run(LEAVING)
    (ring,) = lab.rings()
    calls = [(ring.strings[c["name_str"]].partition(".")[2], c) for c in ring.of("callback")]
    (lost,) = (c for name, c in calls if name == "_call_connection_lost")
    assert lost["waker_run"] == 0
    made = [c["run"] for name, c in calls if name == "_call_connection_made"]
    assert len({s["run"] for s in ring.of("step") if s["waker_run"] in made}) == 2
