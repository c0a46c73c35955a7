"""The shapes of an await on other threads, processes and signals. Times in CLOCK_MONOTONIC ns."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from truth import together, wait

if TYPE_CHECKING:
    from collections.abc import Callable

WORK_S = 0.011


def work(call: int) -> dict[str, int]:
    """Send a tagged length to itself, sleep, and burn some CPU; tell who did it, and when."""
    begin_ns = time.monotonic_ns()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.send(b"w" * (1001 + call))
    time.sleep(WORK_S)
    spent_ns = time.thread_time_ns()
    while time.thread_time_ns() - spent_ns < 2_000_000:
        pass
    return {
        "worker": threading.get_native_id(),
        "process": os.getpid(),
        "begin_ns": begin_ns,
        "finish_ns": time.monotonic_ns(),
        "cpu_ns": time.thread_time_ns() - spent_ns,
    }


async def _pooled(name: str, run: Callable[[int], Any]) -> dict[str, Any]:
    """Await three calls at once: a pool of one worker makes two of them queue."""

    async def subject(call: int) -> None:
        with wait(name, kind="thread", call=call) as row:
            row.update(await run(call))

    await together(**{f"{name}_{call}": subject(call) for call in range(3)})
    return {"count": 3}


async def thread_pool() -> dict[str, Any]:
    """Queue for the only worker of a pool of threads."""
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1) as pool:
        return await _pooled("pooled", lambda call: loop.run_in_executor(pool, work, call))


async def to_thread() -> dict[str, Any]:
    """Use the default pool through to_thread: its only worker is made by the first call."""
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))
    return await _pooled("threaded", lambda call: asyncio.to_thread(work, call))


async def short_work() -> dict[str, Any]:
    """Await calls that a new worker ends before the loop has their future."""
    loop = asyncio.get_running_loop()

    async def subject() -> None:
        for call in range(5):
            with ThreadPoolExecutor(1) as pool, wait("short", kind="thread", call=call) as row:
                row["worker"] = await loop.run_in_executor(pool, threading.get_native_id)

    await together(short_work=subject())
    return {"count": 5}


async def process_pool() -> dict[str, Any]:
    """Queue for the only worker of a pool of processes, forked before the first call."""
    loop = asyncio.get_running_loop()
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
        return await _pooled("forked", lambda call: loop.run_in_executor(pool, work, call))


async def subprocesses() -> dict[str, Any]:
    """Await the end of a child, all that it prints, and a line of it.

    The child begins to print, and ends, when its standard input is closed: not before it is waited
    for.
    """
    loop = asyncio.get_running_loop()
    script = "import sys; sys.stdin.read(); print('x' * 5001)"
    pipe = asyncio.subprocess.PIPE

    async def child(*, close: bool) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", "-c", script), stdin=pipe, stdout=pipe
        )
        assert process.stdin
        if close:
            loop.call_later(WORK_S, process.stdin.close)
        return process

    async def waiter() -> None:
        process = await child(close=True)
        with wait("wait", kind="subprocess"):
            await process.wait()

    async def talker() -> None:
        process = await child(close=False)
        with wait("communicate", kind="subprocess"):
            await process.communicate(b"")

    async def reader() -> None:
        process = await child(close=True)
        assert process.stdout
        with wait("readline", kind="subprocess"):
            await process.stdout.readline()
        await process.wait()

    await together(waiter=waiter())
    await together(talker=talker())
    await together(reader=reader())
    return {"count": 3}


async def signals() -> dict[str, Any]:
    """Let a handler of SIGUSR1 set an event, a future and a queue."""
    loop = asyncio.get_running_loop()
    event, future = asyncio.Event(), loop.create_future()
    queue: asyncio.Queue[None] = asyncio.Queue()

    def handler() -> None:
        event.set()
        future.set_result(None)
        queue.put_nowait(None)

    async def subject(waited: Any) -> None:
        with wait("signal", kind="signal"):
            await waited

    loop.add_signal_handler(signal.SIGUSR1, handler)
    loop.call_later(WORK_S, os.kill, os.getpid(), signal.SIGUSR1)
    await together(
        on_event=subject(event.wait()), on_future=subject(future), on_queue=subject(queue.get())
    )
    return {"count": 3}


SHAPES = (thread_pool, to_thread, short_work, process_pool, subprocesses, signals)
