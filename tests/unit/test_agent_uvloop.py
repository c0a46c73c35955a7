"""The agent on uvloop: what it records, and that the app notices nothing."""

from __future__ import annotations

import sys
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from tests.unit.agent_ring import Lab
from tracer import agent

if TYPE_CHECKING:
    from pathlib import Path

RUN_TIMER = 1  # record.h

# what an app can see of its callbacks: errors, handles, contexts, what is refused, order
CURIOUS = """
import asyncio, collections, contextvars, functools, os, signal, sys, uvloop
var = contextvars.ContextVar("var", default=0)
def note(*what): print(*what, var.get(), sys.exc_info()[0])
def bad(): raise KeyError(1)
def handler(loop, context):
    print(sorted(context), context["message"].split(" at 0x")[0], repr(context["exception"]))
async def refused(): pass
class Loop(uvloop.Loop): pass
async def main():
    loop = asyncio.get_running_loop()
    loop.mine = collections.deque([1])
    loop.set_exception_handler(handler)
    for call in (loop.call_soon, loop.call_soon_threadsafe, functools.partial(loop.call_later, 0)):
        call(bad)
        call(note, 1, 2)
        context = contextvars.copy_context()
        context.run(var.set, 7)
        call(note, context=context)
        call(note).cancel()
        handle = call(len)
        print(type(handle).__name__, handle.cancelled(), handle)
        handle.cancel()
        for wrong in ((), (note,)):
            try:
                call(*wrong, nonsense=1)
            except TypeError as error:
                print(error)
    timer = loop.call_later(3, note)
    print(timer, timer.when() > loop.time())
    timer.cancel()
    for bad_handler in (refused, 5):
        try:
            loop.add_signal_handler(signal.SIGUSR1, bad_handler)
            print("taken")
        except (TypeError, RuntimeError) as error:
            print(error)
    loop.add_signal_handler(signal.SIGUSR1, note, "signal")
    os.kill(os.getpid(), signal.SIGUSR1)
    read, write = os.pipe()
    loop.add_reader(read, lambda: note("readable", os.read(read, 9)))
    os.write(write, b"x")
    print(await loop.run_in_executor(None, len, "four"))
    await asyncio.sleep(0.02)
    print(loop.remove_reader(read), loop.remove_signal_handler(signal.SIGUSR1), loop.mine)
for kind in (uvloop.Loop, Loop):
    loop = kind()
    loop.set_debug("dev" in sys.argv)
    loop.run_until_complete(main())
    loop.call_soon(sys.exit, 3)
    try:
        loop.run_forever()
    except SystemExit as error:
        print(repr(error))
    loop.close()
    try:
        loop.call_soon(note)
    except RuntimeError as error:
        print(error)
"""
WORKING = """
import asyncio, uvloop
async def child(go):
    await go.wait()
async def main():
    go = asyncio.Event()
    task = asyncio.create_task(child(go), name="child")
    await asyncio.sleep(0.01)
    go.set()
    await task
uvloop.run(main())
"""
# what a stream takes and what it refuses, and how long its queue is then
WRITING = """
import asyncio, uvloop
class Quiet(asyncio.Protocol):
    def connection_made(self, transport):
        transport.pause_reading()
def tried(call, *args, **named):
    try:
        print(call(*args, **named))
    except Exception as error:
        print(type(error).__name__, str(error).split(" 0x")[0])
async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Quiet, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    stream, _ = await loop.create_connection(asyncio.Protocol, *address)
    full = stream.write(b"f" * 16_000_000) or stream.get_write_buffer_size()
    for data in (b"1", b"", bytearray(20), memoryview(bytes(300)), "no", None, 5):
        tried(stream.write, data)
        tried(stream.writelines, [data, data])
        tried(stream.writelines, iter([data]))
        print(stream.get_write_buffer_size() - full)
    tried(stream.write)
    tried(stream.write, b"", b"")
    tried(stream.write, nonsense=b"")
    tried(stream.writelines, [b"4", 4])
    stream.write_eof()
    tried(stream.write, b"late")
    stream.abort()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    tried(stream.write, b"gone")
    tried(stream.writelines, [b"gone"])
    server.close()
uvloop.run(main())
"""
CONNECTING = """
import asyncio, uvloop
async def main():
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    await reader.read()
    writer.close()
uvloop.run(main())
"""


@pytest.fixture
def own(tmp_path: Path, agent_cache: Path, *, light: bool) -> Lab:
    """Return a lab for the Python that has uvloop, with either agent."""
    assert light or agent.prebuild(sys.executable, agent_cache) is None
    return Lab(sys.executable, tmp_path, tmp_path / "empty" if light else agent_cache, light=light)


def test_the_app_notices_nothing(own: Lab) -> None:
    """Callbacks, errors, handles and what is refused are as they are without the agent."""
    plain, traced = own.run(CURIOUS, traced=False), own.run(CURIOUS)
    assert (traced.stdout, traced.stderr) == (plain.stdout, plain.stderr)
    assert own.reasons() == []
    assert len(own.rings()[0].of("callback")) > 10


def test_tasks_have_steps_and_wakers(own: Lab) -> None:
    """A task that another one woke names that one's step as its waker, a timer none."""
    own.run(WORKING)
    (ring,) = own.rings()
    first, second = ring.steps("child")
    (setter,) = [s for s in ring.of("step") if s["run"] == second["waker_run"]]
    assert setter["task"] == first["task"] - 1
    timers = [c for c in ring.of("callback") if c["flags"] & RUN_TIMER]
    assert [s["waker_run"] for s in ring.of("step") if s is setter] == [timers[0]["run"]]


def test_a_class_made_of_uvloops_is_known_as_such(own: Lab) -> None:
    """Whatever its name: libuv calls protocols by itself there, and never on asyncio's."""
    own.run(
        "import asyncio, uvloop\nclass Mine(uvloop.Loop): pass\n"
        "for kind in (uvloop.Loop, Mine, asyncio.SelectorEventLoop):\n"
        "    loop = kind(); loop.run_until_complete(asyncio.sleep(0)); loop.close()\n"
    )
    (ring,) = own.rings()
    assert [loop["flags"] for loop in ring.of("loop")] == [1, 1, 0]


@pytest.mark.parametrize("light", [False], ids=["c"])
def test_what_stays_in_a_streams_queue_is_told(own: Lab) -> None:
    """A write that leaves bytes in the queue is told with its length, and is as it is without."""
    plain, traced = own.run(WRITING, traced=False), own.run(WRITING)
    assert (traced.stdout, traced.stderr) == (plain.stdout, plain.stderr)
    (ring,) = own.rings()
    first, *others = [(r["before_bytes"], r["after_bytes"]) for r in ring.of("stream_write")]
    assert first[0] == 0 < first[1] < 16_000_000
    taken = [after - before for before, after in others if after != before]
    assert taken == [1, 2, 1, 20, 40, 20, 300, 600, 300, 1]
    assert {(r["fd"] > 2, r["task"]) for r in ring.of("stream_write")} == {(True, 1)}
    assert all(before == after for (_, after), (before, _) in pairwise([first, *others]))


def test_what_uvloop_schedules_for_itself_is_a_run(own: Lab) -> None:
    """Its end of a connection's set-up is a callback of that name, which woke who waited for it."""
    own.run(CONNECTING)
    (ring,) = own.rings()
    made = [
        c for c in ring.of("callback") if "_call_connection_made" in ring.strings[c["name_str"]]
    ]
    assert {s["task"] for s in ring.of("step") if s["waker_run"] in {c["run"] for c in made}}
    for callback in made:
        assert 0 < callback["wake_ns"] <= callback["ts_ns"] <= callback["end_ns"]


def test_light_mode_refuses_a_uvloop_that_sends_later(tmp_path: Path) -> None:
    """Before 0.23 nobody knew in light mode whose a send is: no tasks, and the reason."""
    lab = Lab(sys.executable, tmp_path, tmp_path / "empty", light=True)
    lab.write(
        "uvloop.py", "from asyncio import SelectorEventLoop as Loop\n__version__ = '0.22.1'\n"
    )
    lab.run("import asyncio, uvloop\nasyncio.run(asyncio.sleep(0))\n")
    assert [reason.split(": ", 1)[1] for reason in lab.reasons()] == [
        "in light mode uvloop 0.22.1 hides who sends what"
    ]


def test_an_unknown_uvloop_ends_the_recording(lab: Lab) -> None:
    """What is not as we know it is named, and the program runs as ever."""
    lab.write("uvloop.py", "class Loop:\n    def call_soon(self):\n        return 'mine'\n")
    done = lab.run("import asyncio, uvloop\nasyncio.run(asyncio.sleep(0))\nprint('fine')\n")
    assert (done.stdout, done.stderr) == ("fine\n", "")
    (reason,) = lab.reasons()
    assert reason.startswith("hooks_failed")
