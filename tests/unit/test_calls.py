"""Which C function a frame is calling, read from outside, for every CPython that there is here."""

from __future__ import annotations

import os
import subprocess
import time
from collections import defaultdict
from typing import TYPE_CHECKING

from tests.unit.test_frames import first_ring
from tracer import agent
from tracer.capture import sampler
from tracer.capture.frames import Interpreter

if TYPE_CHECKING:
    from tests.unit.agent_ring import Lab

# each line that ends in a comment takes long, inside the C function that the comment names
PROGRAM = (
    """\
import asyncio, ctypes, functools, itertools, sys, threading, time
S = 0.08
LOCK = threading.Lock()
LOCK.acquire()
JOINED = threading.Thread(target=time.sleep, args=(0,))
class Late(ctypes.c_int): pass
class Sleepy:
    def __del__(self): pass
    def wait(self, *args, **kwargs): return LOCK.acquire(timeout=S)  # _thread.lock.acquire
def late():
    time.sleep(S)  # time.sleep
    yield
def release():
    threading.Thread(target=lambda: (time.sleep(S), LOCK.release())).start()
def blocks(n, *args, a=1, **kwargs):
    x = [1, 2, (3, time.sleep(S), {n: [n for _ in "ab"]})]  # time.sleep
    for i, (y, *z) in enumerate([(1, 2, 3)]):
        try:
            with open("/dev/null") as file:
                f"{i!r:>{n}}{LOCK.acquire(timeout=S)}{y}"  # _thread.lock.acquire
                raise ValueError(file)
        except (KeyError, ValueError) as error:
            print(n, str(error) and (a if n > 9 else not time.sleep(S)), end="")  # time.sleep
        finally:
            z[0] = z[1] and time.sleep(*args)  # time.sleep
    time.sleep(*args, **{})  # time.sleep
    functools.partial(time.sleep, S)()  # functools.partial.__call__
    LOCK.acquire(blocking=True, timeout=S)  # _thread.lock.acquire
    list(map(time.sleep, (S,)))  # list
    for _ in map(time.sleep, (S,)):  # map.__next__
        pass
    [_ for _ in itertools.starmap(time.sleep, ((S,),))]  # itertools.starmap.__next__
    threading.Lock.__call__ if 0 else ctypes.CDLL(None).usleep(80000)  # _ctypes.CFuncPtr.__call__
    "".join(filter(lambda _: time.sleep(S), "x"))  # time.sleep
    sorted(("a", "b"), key=functools.partial(lambda s, _: time.sleep(s) or s, S))  # time.sleep
    release()
    with LOCK:  # _thread.lock.__enter__
        pass
    LOCK.acquire()
    Sleepy().wait(*args, **kwargs)
    assert next(late(), 1) is None
    lambda: n
    end = time.monotonic() + S
    while end - n * 0 > CLOCK:  # python
        set_clock()  # python
    """
    + "; ".join(f"v{i} = {i}" for i in range(300))
    + """
    if v0 or v1: [v299, v298, (v297, time.sleep(S))]  # time.sleep
def set_clock():
    global CLOCK
    CLOCK = time.monotonic()
CLOCK = 0
async def main():
    await asyncio.sleep(0)
    blocks(2, S, k=1)
asyncio.run(main())
"""
)


def seen_in(lab: Lab) -> tuple[dict[int, set[str | None]], bool]:
    """Run the program; return what its innermost frame called, by line, and if that is told."""
    env = agent.environment(dict(os.environ), lab.live, lab.cache, 64)
    seen: dict[int, set[str | None]] = defaultdict(set)
    command = [lab.python, str(lab.write("program.py", PROGRAM))]
    with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL) as process:
        ring = first_ring(lab)
        interpreter = Interpreter(ring, process.pid)
        while process.poll() is None:
            for place in sampler.overdue(ring, time.monotonic_ns()):
                if sample := sampler.sample_of(ring, interpreter, place):
                    seen[sample["frames"][0]["line"]].add(sample["calls"])
            time.sleep(0.01)
    assert process.returncode == 0
    told = bool(ring.layout["calls"])
    assert told == (ring.hexversion >= 0x030B0000)
    interpreter.close()
    ring.close()
    return seen, told


def test_the_c_function_of_each_line(lab_in_c: Lab) -> None:
    """A line that takes long in a C function is seen in it, and never in another one."""
    lab = lab_in_c
    seen, told = seen_in(lab)
    if not told:
        assert {None} == set().union(*seen.values())
        return
    lines = enumerate(PROGRAM.splitlines(), 1)
    wanted = {n: line.split("  # ")[1] for n, line in lines if "  # " in line}
    assert len(wanted) == 19
    missing = {n: name for n, name in wanted.items() if name != "python" and name not in seen[n]}
    assert not missing
    for n, name in wanted.items():
        assert seen[n] <= {name, "", None, "time.monotonic"}, PROGRAM.splitlines()[n - 1]
