"""A short program with every layer in it, recorded once for the golden tests (tests/golden).

A pool of 2 connections under 3 tasks, a step that holds the loop, a thread, a queue and a timer.
The last line of stdout is JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import asyncpg

HELD_S = 0.06


async def reader(pool: Any, length: int) -> None:
    """Ask twice for an answer of this length."""
    for _ in range(2):
        async with pool.acquire() as conn:
            await conn.fetch("SELECT repeat('x', $1::int)", length)


async def holder() -> None:
    """Hold the loop while the readers wait for their answers."""
    await asyncio.sleep(0.001)
    end = time.thread_time() + HELD_S
    while time.thread_time() < end:
        pass
    await asyncio.to_thread(time.sleep, 0.002)


async def producer(queue: asyncio.Queue[int]) -> None:
    """Give the consumer three things to wait for."""
    for number in range(3):
        await asyncio.sleep(0.002)
        queue.put_nowait(number)


async def consumer(queue: asyncio.Queue[int]) -> None:
    """Wait for three things."""
    for _ in range(3):
        await queue.get()


async def main(dsn: str) -> None:
    """Run them all at once."""
    queue: asyncio.Queue[int] = asyncio.Queue()
    async with (
        asyncpg.create_pool(dsn, min_size=2, max_size=2) as pool,
        asyncio.TaskGroup() as group,
    ):
        for index in range(3):
            group.create_task(reader(pool, 3000 + 700 * index), name=f"reader-{index}")
        group.create_task(holder(), name="holder")
        group.create_task(producer(queue), name="producer")
        group.create_task(consumer(queue), name="consumer")
    print(json.dumps({"app": "golden"}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
