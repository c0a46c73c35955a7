"""Damaged traces: every command gives a result or one clear error, in bounded time and memory."""

from __future__ import annotations

import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fuzzing
import pytest
from bpf_scope import PYTHON, Scope
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tracer.events.header import load

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.bpf
MORTAL = str(Path(__file__).with_name("mortal.py"))

# sockets, timers, a thread, tasks: a row of most tables
APP = """\
import asyncio
async def serve(reader, writer):
    while line := await reader.readline():
        writer.write(line)
    writer.close()
async def client(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(3):
        writer.write(b"x\\n")
        await reader.readline()
        await asyncio.sleep(0.001)
    writer.close()
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    await asyncio.gather(client(port), client(port))
    await asyncio.to_thread(sum, range(10))
    server.close()
asyncio.run(main())
"""
COMMANDS = st.tuples(st.sampled_from(fuzzing.COMMANDS), st.sampled_from(fuzzing.COMMANDS))


class Folders:
    """A whole trace, as its recording left it and as it was finished, and a place to damage one."""

    def __init__(self, scope: Scope) -> None:
        """Record it: the tracer dies before it can finish the trace."""
        self.recorded, self.finished = scope.trace, scope.folder / "finished"
        self._work = scope.folder / "work"
        process = scope.start(
            *(PYTHON, scope.script("app.py", APP)),
            before=(sys.executable, MORTAL, "tracer.correlate.trace:finalise:before:1"),
            options=("--agent-slots", "256"),
        )
        process.communicate(timeout=40)
        assert process.returncode == -signal.SIGKILL
        shutil.copytree(self.recorded, self.finished)
        assert fuzzing.outcomes(self.finished) == []
        assert (self.finished / "await.parquet").exists()

    def check(
        self,
        whole: Path,
        damage: list[tuple[Any, ...]],
        commands: tuple[tuple[str, ...], ...],
    ) -> None:
        """Damage a copy of a trace, and ask the commands."""
        shutil.rmtree(self._work, ignore_errors=True)
        shutil.copytree(whole, self._work)
        for one in damage:
            fuzzing.apply(self._work, one)
        assert fuzzing.outcomes(self._work, commands) == []


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Give the trace."""
    scope = Scope(tmp_path_factory.mktemp("fuzz"))
    try:
        return Folders(scope)
    finally:
        scope.close()


def fuzz(examples: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return the settings: the same examples each time."""
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow],
    )


@fuzz(12)
@given(data=st.data())
def test_a_damaged_recording(folders: Folders, data: st.DataObject) -> None:
    """Whatever happened to a recording that nobody has finished, the next command says so."""
    damage = data.draw(fuzzing.damages(fuzzing.files_of(folders.recorded)))
    folders.check(folders.recorded, damage, data.draw(COMMANDS))


@fuzz(25)
@given(data=st.data())
def test_a_damaged_trace(folders: Folders, data: st.DataObject) -> None:
    """Whatever happened to the tables and the manifest, each command says so."""
    damage = data.draw(fuzzing.damages(fuzzing.files_of(folders.finished)))
    folders.check(folders.finished, damage, data.draw(COMMANDS))


@pytest.mark.parametrize("field", ["start_ns", "slots", "head", "tail", "lost"])
def test_a_ring_whose_header_lies(folders: Folders, field: str) -> None:
    """A size, a position or a count that no ring can have takes neither time nor memory."""
    (ring,) = folders.recorded.glob("live/*.ring")
    fields = load().records["agent_ring"].dtype.fields
    assert fields
    where = fields[field][1] / ring.stat().st_size
    damage = [("number", f"live/{ring.name}", where, 1 << 60)]
    folders.check(folders.recorded, damage, (("info",),))
