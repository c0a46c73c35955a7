"""The shapes of an await on asyncio's primitives beyond Lock and Event, each with a known waker."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from truth import together, wait

if TYPE_CHECKING:
    from collections.abc import Coroutine

PAUSE_S = 0.007


async def later(act: Any) -> None:
    """Call something after a pause: the waker of a shape."""
    await asyncio.sleep(PAUSE_S)
    act()


async def holding(lock: Any) -> None:
    """Hold a lock or a semaphore for a pause."""
    async with lock:
        await asyncio.sleep(PAUSE_S)


async def locks() -> dict[str, Any]:
    """Await a semaphore, a condition, a condition whose lock is still held, and a barrier."""
    semaphore, barrier = asyncio.Semaphore(1), asyncio.Barrier(2)
    free, held = asyncio.Condition(), asyncio.Condition()

    async def semaphored() -> None:
        with wait("semaphore", kind="lock", woken_by="holder"):
            await semaphore.acquire()
        semaphore.release()

    async def conditional(condition: asyncio.Condition, by: str) -> None:
        async with condition:
            with wait("condition", kind="lock", woken_by=by):
                await condition.wait()

    async def notifier(condition: asyncio.Condition, held_s: float) -> None:
        await asyncio.sleep(PAUSE_S)
        async with condition:
            condition.notify()
            if held_s:
                await asyncio.sleep(held_s)

    async def first() -> None:
        with wait("barrier", kind="lock", woken_by="second"):
            await barrier.wait()

    async def second() -> None:
        await asyncio.sleep(PAUSE_S)
        await barrier.wait()

    await together(
        holder=holding(semaphore),
        semaphored=semaphored(),
        conditional=conditional(free, "notifier"),
        notifier=notifier(free, 0),
        conditional_held=conditional(held, "notifier_held"),
        notifier_held=notifier(held, PAUSE_S),
        first=first(),
        second=second(),
    )
    return {"count": 4}


async def queues() -> dict[str, Any]:
    """Await get, put and join of all kinds of queues."""
    tasks: dict[str, Coroutine[Any, Any, None]] = {}
    for kind in (asyncio.Queue, asyncio.PriorityQueue, asyncio.LifoQueue):
        name = kind.__name__.lower()
        empty, full, unfinished = kind(), kind(1), kind()
        full.put_nowait(1)
        unfinished.put_nowait(1)
        unfinished.get_nowait()
        waits = {"get": empty.get(), "put": full.put(2), "join": unfinished.join()}
        acts = {
            "get": lambda q=empty: q.put_nowait(1),
            "put": full.get_nowait,
            "join": unfinished.task_done,
        }

        async def subject(what: str, by: str, waited: Coroutine[Any, Any, Any]) -> None:
            with wait(what, kind="queue", woken_by=by):
                await waited

        for what, waited in waits.items():
            tasks[f"{name}_{what}"] = subject(what, f"{name}_{what}_waker", waited)
            tasks[f"{name}_{what}_waker"] = later(acts[what])
    await together(**tasks)
    return {"count": 9}


SHAPES = (locks, queues)
