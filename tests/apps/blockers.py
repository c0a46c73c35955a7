"""Ground truth: an event loop that is held in every way of blocks.py, in every kind of callback.

Held from a coroutine, from a protocol's data_received, from a reader (add_reader) and from
call_later; by many small callbacks in one iteration, of each kind; and twice within 30 ms, in each
place. A victim awaits all along. The last line of stdout is JSON: `blocks`, each with what, place,
start_ns, end_ns.
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
import running

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

FOUND: list[dict[str, Any]] = []
PAUSE_S, MANY = 0.03, 40


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


class Short(asyncio.Protocol):
    """Blocks shortly at the first bytes."""

    def data_received(self, data: bytes) -> None:
        """Block."""
        blocks.short()


def short_reader(here: socket.socket) -> None:
    """Block shortly when there are bytes."""
    here.recv(1)
    blocks.short()


async def many_small(place: str) -> None:
    """Fill one loop iteration with short callbacks."""
    loop, pairs = asyncio.get_running_loop(), [socket.socketpair() for _ in range(MANY)]
    due = loop.time() + 0.02
    blocks.SHORT_NS.clear()
    for here, _there in pairs:
        if place == "data_received":
            await loop.create_connection(Short, sock=here)
        elif place == "add_reader":
            loop.add_reader(here, short_reader, here)
        elif place == "call_later":
            loop.call_at(due, blocks.short)
        else:
            loop.call_soon(blocks.short)
    if place == "call_later":
        # uvloop counts milliseconds: some would be due in the next one
        time.sleep(0.03)  # noqa: ASYNC251
    for _here, there in pairs:
        there.send(b"x")
    await asyncio.sleep(0.05)  # the loop is held before that is over
    times = {"start_ns": blocks.SHORT_NS[0], "end_ns": blocks.SHORT_NS[-1]}
    FOUND.append({"what": "many", "place": place, **times})
    for here, there in pairs:
        there.close()
        if place != "data_received":  # else it is its transport's
            loop.remove_reader(here)
            here.close()


async def twice(place: Callable[[str, Callable[[], None]], Awaitable[None]]) -> None:
    """Block twice, 30 ms apart, in different lines."""
    await place("first", blocks.first)
    await asyncio.sleep(PAUSE_S)
    await place("second", blocks.second)


async def victim() -> None:
    """Want to run every 10 ms."""
    for _ in range(10_000):
        await asyncio.sleep(0.01)


async def run(chosen: list[str]) -> None:
    """Block in every way and place, with pauses in between."""
    suffering = asyncio.create_task(victim(), name="victim")
    await asyncio.sleep(0.3)  # who looks into long steps hears of a new loop's thread a bit later
    for what in chosen:
        for place in PLACES:
            task = place(what, blocks.BLOCKS[what])
            await asyncio.create_task(task, name=f"{what}-{place.__name__}")
            await asyncio.sleep(PAUSE_S)
    for name in ("call_soon", "data_received", "add_reader", "call_later"):
        await asyncio.create_task(many_small(name), name="many")
        await asyncio.sleep(PAUSE_S)
    for place in PLACES:
        await asyncio.create_task(twice(place), name=f"twice-{place.__name__}")
        await asyncio.sleep(PAUSE_S)
    suffering.cancel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="*", default=list(blocks.BLOCKS))
    parser.add_argument("--wait", action="store_true", help="say the pid, wait for a line")
    running.add_option(parser)
    options = parser.parse_args()
    blocks.prepare()
    if options.wait:
        print(os.getpid(), flush=True)
        sys.stdin.readline()
    running.runner(options.loop)(run(options.only))
    print(json.dumps({"app": "blockers", "blocks": FOUND}))
