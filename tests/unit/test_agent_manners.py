"""With the agent a program does what it does without: its own start, its errors, its objects."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.unit.agent_ring import Lab


def test_the_apps_sitecustomize_runs(lab: Lab) -> None:
    """The app's own sitecustomize runs under its name; without one there is no such module."""
    lab.write("own/sitecustomize.py", "import sys\nmine = sys.modules[__name__].__file__\n")
    program = """
import sys
own = sys.modules.get("sitecustomize")
print(getattr(own, "mine", None), [p for p in sys.path if "bootstrap" in p])
"""
    for own in ("own", "nothing"):
        path = str(lab.folder / own)
        plain = lab.run(program, traced=False, PYTHONPATH=path)
        traced = lab.run(program, PYTHONPATH=path)
        assert (traced.stdout, traced.stderr) == (plain.stdout, plain.stderr)


@pytest.mark.parametrize("flags", [(), ("-X", "dev")])
def test_exceptions_reach_the_handler_as_before(lab: Lab, flags: tuple[str, ...]) -> None:
    """A failing callback gives the handler what it gets without the agent."""
    program = """
import asyncio, sys
def bad(): raise KeyError(1)
def handler(loop, context):
    print(sorted(context), context["message"], repr(context["exception"]), sys.exc_info()[0])
async def main():
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(handler)
    loop.call_soon(bad)
    loop.call_later(0.001, bad)
    await asyncio.sleep(0.005)
asyncio.run(main())
print(sys.exc_info())
def leave(): raise SystemExit(0)
loop = asyncio.new_event_loop()
loop.call_soon(leave)
loop.run_forever()
"""
    plain = lab.run(program, *flags, traced=False)
    traced = lab.run(program, *flags)
    assert plain.stdout.count("KeyError(1)") == 2
    assert traced.stdout == plain.stdout
    assert len(lab.rings()) == 1


def test_unretrieved_exceptions_are_still_reported(lab: Lab) -> None:
    """Looking at a failed task does not mark its exception as retrieved."""
    done = lab.run("""
import asyncio
async def fails(): raise ValueError("nobody asked")
async def main():
    asyncio.create_task(fails())
    await asyncio.sleep(0.001)
asyncio.run(main())
""")
    assert "Task exception was never retrieved" in done.stderr


def test_objects_die_when_they_did(lab: Lab) -> None:
    """The agent keeps no coroutine, task or argument alive."""
    program = """
import asyncio, gc, weakref
gc.disable()
class Thing: pass
refs = []
async def inner(thing):
    await asyncio.sleep(0.0001)
async def outer():
    thing = Thing()
    refs.append(weakref.ref(thing))
    coro = inner(thing)
    refs.append(weakref.ref(coro))
    await coro
    del coro, thing
    print([ref() for ref in refs])
    await asyncio.sleep(0.0001)
async def main():
    task = asyncio.create_task(outer())
    refs.append(weakref.ref(task))
    await task
    del task
    await asyncio.sleep(0)
    print([ref() for ref in refs])
asyncio.run(main())
"""
    plain = lab.run(program, traced=False).stdout.split("]")[1:]
    assert lab.run(program).stdout.split("]")[1:] == plain


def test_a_process_without_asyncio_does_not_import_it(lab: Lab) -> None:
    """The bootstrap itself imports neither asyncio nor subprocess nor hashlib."""
    done = lab.run("""
import sys
print(sorted({"asyncio", "subprocess", "hashlib", "sysconfig"} & set(sys.modules)))
""")
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("lab_in_c", [sys.executable], indirect=True)
def test_a_process_that_builds_the_agent_does_not_show_it(lab_in_c: Lab) -> None:
    """The first process of an interpreter has the agent, and what it imported is its own."""
    program = """
import os, sys
print(sorted(set(sys.modules) - {"_awaitscope_agent", "__future__"}), os.listdir("/proc/self/fd"))
"""
    plain = lab_in_c.run(program, traced=False).stdout
    lab_in_c.cache = lab_in_c.folder / "empty"
    assert lab_in_c.run(program).stdout == plain
    assert [int(ring.head["mode"]) for ring in lab_in_c.rings()] == [1]


def test_handshakes_are_as_before(lab: Lab) -> None:
    """What shakes hands looks, answers and fails as it does without the agent."""
    program = """
import asyncio, inspect, pickle, ssl, traceback, _ssl
async def main(): pass
asyncio.run(main())
method = _ssl._SSLSocket.do_handshake
print(method.__qualname__, method.__doc__)
print(inspect.signature(method), inspect.signature(ssl.SSLSocket.do_handshake))
print(pickle.loads(pickle.dumps(ssl.SSLObject.do_handshake)) is ssl.SSLObject.do_handshake)
try:
    _ssl._SSLSocket.do_handshake = None
except TypeError as error:
    print(error)
context = ssl.create_default_context()
read, write = ssl.MemoryBIO(), ssl.MemoryBIO()
tls = context.wrap_bio(read, write, server_hostname="localhost")
for bytes in (b"", b"no TLS at all"):
    read.write(bytes)
    try:
        tls.do_handshake()
    except ssl.SSLError as error:
        print(type(error), error.reason, error.__context__, write.pending > 0)
try:
    method(1)
except TypeError as error:
    print(error)
"""
    plain = lab.run(program, traced=False)
    traced = lab.run(program)
    assert "SSLWantReadError" in plain.stdout
    assert (traced.stdout, traced.stderr) == (plain.stdout, plain.stderr)
    (ring,) = lab.rings()
    want_read, failed = ring.of("handshake")
    assert (want_read["flags"], failed["flags"]) == (0, 2)  # HANDSHAKE_FAILED
    assert want_read["tls"] == failed["tls"] > 0
