"""The shapes of an await that need no socket: timers, tasks, locks, threads, cancellation."""

from __future__ import annotations

import asyncio
import json
import os
import time
from typing import Any

from truth import WAITS, together, wait


async def timer() -> dict[str, Any]:
    """Sleep for known times."""
    durations_ms = [11, 23, 37]

    async def subject() -> None:
        for duration_ms in durations_ms:
            with wait("sleep", deadline_ms=duration_ms):
                await asyncio.sleep(duration_ms / 1000)

    await together(timer=subject())
    return {"count": 3, "durations_ms": durations_ms}


async def late_timer() -> dict[str, Any]:
    """Sleep for 5 ms while another task holds the loop for 25 ms from before the deadline on."""
    spin: dict[str, Any] = {"task": "spinner"}

    async def subject() -> None:
        with wait("sleep", deadline_ms=5):
            await asyncio.sleep(0.005)

    async def spinner() -> None:
        start_ns = now_ns = time.monotonic_ns()
        while now_ns < start_ns + 25_000_000:
            now_ns = time.monotonic_ns()
        spin.update(start_ns=start_ns, end_ns=now_ns)

    await together(late_timer=subject(), spinner=spinner())
    return {"count": 1, "spin": spin}


async def task() -> dict[str, Any]:
    """Await another task, which takes 13 ms."""

    async def subject() -> None:
        child = asyncio.create_task(asyncio.sleep(0.013), name="child")
        with wait("task", woken_by="child"):
            await child

    await together(task=subject())
    return {"count": 1}


async def future() -> dict[str, Any]:
    """Await a bare future that another task sets after 13 ms."""
    promise = asyncio.get_running_loop().create_future()

    async def subject() -> None:
        with wait("future", woken_by="setter"):
            await promise

    async def setter() -> None:
        await asyncio.sleep(0.013)
        promise.set_result(None)

    await together(future=subject(), setter=setter())
    return {"count": 1}


async def lock() -> dict[str, Any]:
    """Await a lock that another task holds for 17 ms."""
    shared = asyncio.Lock()

    async def holder() -> None:
        async with shared:
            await asyncio.sleep(0.017)

    async def subject() -> None:
        with wait("lock", woken_by="holder"):
            await shared.acquire()
        shared.release()

    await together(holder=holder(), lock=subject())
    return {"count": 1}


async def event() -> dict[str, Any]:
    """Park three tasks on one event that a fourth sets."""
    flag = asyncio.Event()

    async def subject() -> None:
        with wait("event", woken_by="setter"):
            await flag.wait()

    async def setter() -> None:
        await asyncio.sleep(0.013)
        flag.set()

    await together(event_0=subject(), event_1=subject(), event_2=subject(), setter=setter())
    return {"count": 3}


async def queue() -> dict[str, Any]:
    """Await 23 items of a queue, one every millisecond."""
    items: asyncio.Queue[int] = asyncio.Queue()

    async def subject() -> None:
        for call in range(23):
            with wait("queue", call=call, woken_by="producer"):
                await items.get()

    async def producer() -> None:
        for item in range(23):
            await asyncio.sleep(0.001)
            items.put_nowait(item)

    await together(queue=subject(), producer=producer())
    return {"count": 23}


async def thread() -> dict[str, Any]:
    """Await a thread that sleeps for 31 ms."""

    async def subject() -> None:
        with wait("thread", duration_ms=31):
            await asyncio.to_thread(time.sleep, 0.031)

    await together(thread=subject())
    return {"count": 1}


async def yielding() -> dict[str, Any]:
    """Yield 23 times with sleep(0)."""

    async def subject() -> None:
        with wait("yield", count=23):
            for _ in range(23):
                await asyncio.sleep(0)

    await together(yielding=subject())
    return {"count": 23}


async def cancelled() -> dict[str, Any]:
    """Cancel a parked task after 19 ms."""

    async def subject() -> None:
        with wait("never", woken_by="canceller"):
            await asyncio.Event().wait()

    async def canceller(victim: asyncio.Task[None]) -> None:
        await asyncio.sleep(0.019)
        victim.cancel()

    victim = asyncio.create_task(subject(), name="cancelled")
    await together(canceller=canceller(victim))
    await asyncio.wait([victim])
    return {"count": 1}


async def open_at_end() -> dict[str, Any]:
    """End the process while a task is parked: its row stays open."""

    async def subject() -> None:
        with wait("never", outcome="open"):
            await asyncio.Event().wait()

    parked = asyncio.create_task(subject(), name="open_at_end")
    await asyncio.sleep(0.011)
    assert not parked.done()
    truth = {"app": "shapes", "shape": "open_at_end", "tgid": os.getpid(), "count": 1}
    print(json.dumps({**truth, "waits": WAITS}), flush=True)
    os._exit(0)  # asyncio.run would cancel the task


SHAPES = (
    timer,
    late_timer,
    task,
    future,
    lock,
    event,
    queue,
    thread,
    yielding,
    cancelled,
    open_at_end,
)
