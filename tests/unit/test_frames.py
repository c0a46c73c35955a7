"""What a step is doing, read from outside, for every CPython that there is here."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from tracer import agent
from tracer.capture import sampler
from tracer.capture.frames import Frame, Interpreter, is_library
from tracer.capture.lines import line_at
from tracer.store.ringfile import RingFile

if TYPE_CHECKING:
    from tests.unit.agent_ring import Lab

PROGRAM = """\
import asyncio, json, sys, time
def outer(seconds):
    if seconds:
        return (
            inner(seconds)
        )
def inner(seconds):
    json.loads("1", object_hook=None)
    json.dumps([1], default=lambda _: 1, indent=(
        time.sleep(seconds)))
async def naïve(seconds):
    await asyncio.sleep(0)
    outer(seconds)
async def main():
    await naïve(float(sys.argv[1]))
asyncio.run(main())
"""


def started(lab: Lab, *arguments: str) -> subprocess.Popen[bytes]:
    """Start the program under the agent."""
    base = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "AWAITSCOPE"))}
    env = agent.environment(base, lab.live, lab.cache, 64)
    program = lab.write("program.py", PROGRAM)
    return subprocess.Popen([lab.python, str(program), *arguments], env=env)


def looked_into(lab: Lab, process: subprocess.Popen[bytes]) -> list[Frame]:
    """Return the frames of its first run that is overdue."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        for path in lab.live.glob("*.ring"):
            try:
                ring = RingFile(path)
            except ValueError:
                continue
            for place in sampler.overdue(ring, time.monotonic_ns()):
                interpreter = Interpreter(ring, process.pid)
                found = sampler.sample_of(ring, interpreter, place)
                interpreter.close()
                ring.close()
                assert found is not None
                assert found["holder"] is None or found["holder"]["tid"] != found["tid"]
                return [Frame(**frame) for frame in found["frames"]]
            ring.close()
        time.sleep(0.01)
    raise AssertionError("no run was overdue")


def test_frames_of_a_blocked_step(lab: Lab) -> None:
    """All frames of the step, with their lines, and none of the loop's."""
    with started(lab, "1.5") as process:
        frames = looked_into(lab, process)
        process.kill()
    names = [frame.name for frame in frames]
    assert names == ["inner", "outer", "naïve", "main"]
    assert [frame.line for frame in frames] == [10, 5, 13, 15]
    assert {frame.file for frame in frames} == {str(lab.folder / "program.py")}


def test_short_steps_are_left_alone(lab: Lab) -> None:
    """A program without long steps is never overdue."""
    with started(lab, "0") as process:
        assert process.wait() == 0
    (path,) = lab.live.glob("*.ring")
    ring = RingFile(path)
    assert ring.layout["code_type"] or ring.hexversion >= 0x030E0000
    assert sampler.overdue(ring, time.monotonic_ns() + 10**10) == []
    ring.close()


def test_library() -> None:
    """Files of the standard library and of installed packages are no code of the user's."""
    assert is_library(f"{sys.prefix}/lib/python3.11/site-packages/x/y.py", "")
    assert is_library("/usr/lib/python3.11/json/decoder.py", "/usr/lib/python3.11")
    assert not is_library("/usr/lib/python3.111/mine.py", "/usr/lib/python3.11")
    assert not is_library("/home/me/app.py", "")


def test_a_broken_table_ends_somewhere() -> None:
    """A table that was torn while it was read gives some line, and no error."""
    for version in ((3, 9), (3, 10), (3, 11), (3, 13)):
        for table in (b"", b"\xff", b"\xf0\xff\xff", bytes(range(256))):
            assert isinstance(line_at(version, table, 7, 1000), int)
