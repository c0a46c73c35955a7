"""Ground truth: an event loop that is held in every way of blocks.py, in every kind of callback.

Held from a coroutine, from a protocol's data_received, from a reader (add_reader) and from
call_later; then by many small callbacks in one iteration, and twice within 30 ms. A victim awaits
all along. The last line of stdout is JSON: `blocks`, each with what, place, start_ns, end_ns.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import sys
import time
from typing import TYPE_CHECKING, Any

import blocks

if TYPE_CHECKING:
    from collections.abc import Callable

FOUND: list[dict[str, Any]] = []
PAUSE_S = 0.03


def held(what: str, place: str, block: Callable[[], None]) -> None:
    """Block, and note when."""
    begin = time.monotonic_ns()
    block()
    FOUND.append({"what": what, "place": place, "start_ns": begin, "end_ns": time.monotonic_ns()})


async def in_coroutine(what: str, block: Callable[[], None]) -> None:
    """Block in a task's step."""
    await asyncio.sleep(0)
    held(what, "coroutine", block)


class Blocker(asyncio.Protocol):
    """Blocks at the first bytes."""

    def __init__(self, what: str, block: Callable[[], None], done: asyncio.Event) -> None:
        """Name the block."""
        self._what, self._block, self._done = what, block, done

    def data_received(self, data: bytes) -> None:
        """Block."""
        held(self._what, "data_received", self._block)
        self._done.set()


async def in_protocol(what: str, block: Callable[[], None]) -> None:
    """Block in data_received."""
    here, there = socket.socketpair()
    done = asyncio.Event()
    loop = asyncio.get_running_loop()
    transport, _protocol = await loop.create_connection(
        lambda: Blocker(what, block, done), sock=here
    )
    there.send(b"x")
    await done.wait()
    transport.close()
    there.close()


async def in_reader(what: str, block: Callable[[], None]) -> None:
    """Block in a callback of add_reader."""
    here, there = socket.socketpair()
    done, loop = asyncio.Event(), asyncio.get_running_loop()

    def readable() -> None:
        here.recv(1)
        held(what, "add_reader", block)
        done.set()

    loop.add_reader(here, readable)
    there.send(b"x")
    await done.wait()
    loop.remove_reader(here)
    here.close()
    there.close()


async def in_timer(what: str, block: Callable[[], None]) -> None:
    """Block in a callback of call_later."""
    done = asyncio.Event()

    def late() -> None:
        held(what, "call_later", block)
        done.set()

    asyncio.get_running_loop().call_later(0.01, late)
    await done.wait()


PLACES = (in_coroutine, in_protocol, in_reader, in_timer)


async def many_small() -> None:
    """Fill one loop iteration with short callbacks."""
    loop, begin = asyncio.get_running_loop(), time.monotonic_ns()
    for _ in range(40):
        loop.call_soon(blocks.short)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    FOUND.append(
        {"what": "many", "place": "iteration", "start_ns": begin, "end_ns": time.monotonic_ns()}
    )


async def twice() -> None:
    """Block twice, 30 ms apart, in different lines."""
    held("first", "coroutine", blocks.first)
    await asyncio.sleep(PAUSE_S)
    held("second", "coroutine", blocks.second)


async def victim() -> None:
    """Want to run every 10 ms."""
    for _ in range(10_000):
        await asyncio.sleep(0.01)


async def run(chosen: list[str]) -> None:
    """Block in every way and place, with pauses in between."""
    suffering = asyncio.create_task(victim(), name="victim")
    for what in chosen:
        for place in PLACES:
            task = place(what, blocks.BLOCKS[what])
            await asyncio.create_task(task, name=f"{what}-{place.__name__}")
            await asyncio.sleep(PAUSE_S)
    await asyncio.create_task(many_small(), name="many")
    await asyncio.sleep(PAUSE_S)
    await asyncio.create_task(twice(), name="twice")
    suffering.cancel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="*", default=list(blocks.BLOCKS))
    parser.add_argument("--wait", action="store_true", help="say the pid, wait for a line")
    options = parser.parse_args()
    blocks.prepare()
    if options.wait:
        print(os.getpid(), flush=True)
        sys.stdin.readline()
    asyncio.run(run(options.only))
    print(json.dumps({"app": "blockers", "blocks": FOUND}))
