"""Ground truth: a program and its children, each with a loop of its own and streams.py's traffic.

`alone`: only itself. `fork`, `spawn`, `forkserver`: two children of multiprocessing, started by
that method. `children`: programs of its own choice: another Python, a shell that runs one, and
/bin/true, which is none.

Each process prints one line of JSON: `rows` and `server_rows` as in streams.py, each with its
tgid, and `tgids`, itself.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import shlex
import sys
from pathlib import Path

import loops

MYSELF = [sys.executable, str(Path(__file__).resolve()), "alone"]


def talk(label: str) -> None:
    """Run a loop with traffic and say what it did, in one write."""
    asyncio.run(loops.traffic(label, tasks=3, calls=3))
    os.write(1, (json.dumps(loops.told()) + "\n").encode())


def multiprocess(method: str) -> None:
    """Let children of multiprocessing talk, then this process."""
    context = multiprocessing.get_context(method)
    children = [context.Process(target=talk, args=(f"{method}-{n}",)) for n in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join()
        assert child.exitcode == 0
    talk(f"{method}-parent")


async def other_programs() -> None:
    """Start three programs at once from a task."""
    children = [
        await asyncio.create_subprocess_exec(*MYSELF),
        await asyncio.create_subprocess_shell(f"true; {shlex.join(MYSELF)}; true"),
        await asyncio.create_subprocess_exec("/bin/true"),
    ]
    assert [await child.wait() for child in children] == [0, 0, 0]


if __name__ == "__main__":
    mode = sys.argv[1] if len(sys.argv) > 1 else "alone"
    if mode in multiprocessing.get_all_start_methods():
        multiprocess(mode)
    elif mode == "children":
        asyncio.run(other_programs())
        talk("parent")
    else:
        talk(mode)
