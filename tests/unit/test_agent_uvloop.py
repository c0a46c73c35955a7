"""The agent on uvloop: what it records, and that the app notices nothing."""

from __future__ import annotations

import sys
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


@pytest.fixture
def own(tmp_path: Path, agent_cache: Path) -> Lab:
    """Return a lab for the Python that has uvloop."""
    assert agent.prebuild(sys.executable, agent_cache) is None
    return Lab(sys.executable, tmp_path, agent_cache, light=False)


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


def test_an_unknown_uvloop_ends_the_recording(lab_in_c: Lab) -> None:
    """What is not as we know it is named, and the program runs as ever."""
    lab_in_c.write("uvloop.py", "class Loop:\n    def call_soon(self):\n        return 'mine'\n")
    done = lab_in_c.run("import asyncio, uvloop\nasyncio.run(asyncio.sleep(0))\nprint('fine')\n")
    assert (done.stdout, done.stderr) == ("fine\n", "")
    (reason,) = lab_in_c.reasons()
    assert reason.startswith("hooks_failed")
