"""What a step is doing, read from outside, for every CPython that there is here."""

from __future__ import annotations

import contextlib
import json
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
    from pathlib import Path

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


def first_ring(lab: Lab) -> RingFile:
    """Return the ring of the program that was started."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        for path in lab.live.glob("*.ring"):
            with contextlib.suppress(ValueError):  # not a ring yet
                return RingFile(path)
        time.sleep(0.01)
    raise AssertionError("there is no agent")


def looked_into(lab: Lab, process: subprocess.Popen[bytes]) -> list[Frame]:
    """Return the frames of its first run that is overdue."""
    ring = first_ring(lab)
    interpreter = Interpreter(ring, process.pid)
    deadline = time.monotonic() + 10
    while not (places := sampler.overdue(ring, time.monotonic_ns())):
        assert time.monotonic() < deadline, "no run was overdue"
        time.sleep(0.01)
    found = sampler.sample_of(ring, interpreter, places[0])
    interpreter.close()
    ring.close()
    assert found is not None
    assert found["holder"] is None or found["holder"]["tid"] != found["tid"]
    return [Frame(**frame) for frame in found["frames"]]


def test_frames_of_a_blocked_step(lab_in_c: Lab) -> None:
    """All frames of the step, with their lines, and none of the loop's."""
    lab = lab_in_c
    with started(lab, "1.5") as process:
        frames = looked_into(lab, process)
        process.kill()
    names = [frame.name for frame in frames]
    assert names == ["inner", "outer", "naïve", "main"]
    assert [frame.line for frame in frames] == [10, 5, 13, 15]
    assert {frame.file for frame in frames} == {str(lab.folder / "program.py")}


OUTSIDE = """\
import asyncio, selectors, time
class Slow(selectors.DefaultSelector):
    def select(self, timeout=None):
        if SLOW:
            time.sleep(SLOW.pop())
        return super().select(timeout)
SLOW = []
async def main():
    SLOW.append(1.5)
    await asyncio.sleep(0.1)
    loop.call_soon(time.sleep, 0)
    await asyncio.sleep(0.1)
loop = asyncio.SelectorEventLoop(Slow())
loop.run_until_complete(main())
time.sleep(0.5)
"""


def test_a_loop_that_is_stuck_outside_of_runs(lab_in_c: Lab, tmp_path: Path) -> None:
    """What holds a loop's thread outside of its runs is sampled, too, as long as the loop runs."""
    lab = lab_in_c
    env = agent.environment(dict(os.environ), lab.live, lab.cache, 64)
    samples = tmp_path / "samples"
    looking = sampler.Sampler(os.open(samples, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600))
    program = [lab.python, str(lab.write("outside.py", OUTSIDE))]
    with subprocess.Popen(program, env=env) as process, looking:
        looking.watch(first_ring(lab), process.pid)
        assert process.wait() == 0
    seen = [json.loads(line) for line in samples.read_text().splitlines()]
    assert seen
    for sample in seen:
        assert sample["run"] == 0
        assert (sample["user"]["name"].split(".")[-1], sample["user"]["line"]) == ("select", 5)


def test_short_steps_are_left_alone(lab_in_c: Lab) -> None:
    """A program without long steps is never overdue."""
    lab = lab_in_c
    with started(lab, "0") as process:
        assert process.wait() == 0
    (path,) = lab.live.glob("*.ring")
    ring = RingFile(path)
    assert ring.layout["code_type"]
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
