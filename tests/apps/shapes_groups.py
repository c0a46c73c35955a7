"""The shapes in which a task waits for others, through asyncio's own callbacks. Lengths in bytes.

`woken_by` is the task that `ended_by` names.
"""

from __future__ import annotations

import asyncio
from typing import Any

from truth import answering, one_by_one, peer, together, wait

SHORT_S, LONG_S = 0.004, 0.011
Child = asyncio.Task[Any]


def child(name: str, seconds: float = LONG_S) -> Child:
    """Start a task that ends after a while."""
    return asyncio.create_task(asyncio.sleep(seconds, name), name=name)


async def gather() -> None:
    """Gather two children."""
    children = child("gather_short", SHORT_S), child("gather_long")
    with wait("gather", kind="task", woken_by="gather_long"):
        await asyncio.gather(*children)


async def nested_gather() -> None:
    """Gather a gathering."""
    inner = asyncio.gather(child("nested_long"), child("nested_short", SHORT_S))
    with wait("gather", kind="task", woken_by="nested_long"):
        await asyncio.gather(inner, child("nested_middle", (SHORT_S + LONG_S) / 2))


async def task_group() -> None:
    """Leave a task group."""
    with wait("group", kind="task", woken_by="group_long"):
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(SHORT_S), name="group_short")
            group.create_task(asyncio.sleep(LONG_S), name="group_long")


async def shield() -> None:
    """Await a child through shield."""
    shielded = child("shielded")
    with wait("shield", kind="task", woken_by="shielded"):
        await asyncio.shield(shielded)


async def wait_for() -> None:
    """Await a child with a timeout that does not come."""
    waited = child("waited_for")
    with wait("wait_for", kind="task", woken_by="waited_for"):
        await asyncio.wait_for(waited, 5)


async def wait_all() -> None:
    """Wait for a set."""
    children = {child("wait_short", SHORT_S), child("wait_long")}
    with wait("wait", kind="task", woken_by="wait_long"):
        await asyncio.wait(children)


async def as_completed() -> None:
    """Take children as they end; the second one ends only while it is waited for."""
    go = asyncio.Event()
    last = asyncio.create_task(go.wait(), name="completed_long")
    done = asyncio.as_completed([last, child("completed_short", SHORT_S)])
    with wait("as_completed", kind="task", woken_by="completed_short"):
        await next(done)
    asyncio.get_running_loop().call_later(SHORT_S, go.set)
    with wait("as_completed", kind="task", woken_by="completed_long"):
        await next(done)


async def call_soon() -> None:
    """Await a future that a callback sets, scheduled by another task."""
    future = asyncio.get_running_loop().create_future()

    async def setter() -> None:
        await asyncio.sleep(SHORT_S)
        asyncio.get_running_loop().call_soon(future.set_result, None)

    task = asyncio.create_task(setter(), name="call_soon_setter")
    with wait("call_soon", kind="future", woken_by="call_soon_setter"):
        await future
    await task


async def rolled_up() -> dict[str, Any]:
    """Wait for children in every way that asyncio has: the last child to end is the cause."""
    subjects = (gather, nested_gather, task_group, shield, wait_for, wait_all, as_completed)
    count = await one_by_one(*subjects, call_soon)
    return {"count": count + 1}  # as_completed notes two


async def on_behalf() -> dict[str, Any]:
    """Let children go to a server for the task that gathers them; each has lengths of its own."""
    rounds = {f"fetch_{n}": (1001 + n, 5001 + 7 * n) for n in range(5)}

    async def fetch(sent: int, answer: int) -> None:
        port = peer(answering((sent, answer), delay_s=SHORT_S))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with wait("fetch", sent_bytes=sent, recv_bytes=answer):
            writer.write(b"q" * sent)
            await reader.readexactly(answer)
        writer.close()

    async def boss() -> None:
        tasks = [asyncio.create_task(fetch(*sizes), name=name) for name, sizes in rounds.items()]
        ended: list[str] = []
        for task in tasks:
            task.add_done_callback(lambda done: ended.append(done.get_name()))
        with wait("gather") as row:
            await asyncio.gather(*tasks)
        row["woken_by"] = ended[-1]

    await together(boss=boss())
    return {"count": 6}


SHAPES = (rolled_up, on_behalf)
