"""Ground truth: many loops in one process or several, the traffic of streams.py in each.

`threads`: two loops in two threads at once. `again`: loops made and closed one after the other,
whose descriptors come back as other sockets'. `fork`: processes forked between loops, inside a
task, and by multiprocessing inside a task, each with loops of its own. `eager`: tasks that begin
inside create_task, nested. `poll`, `select`: a loop on that selector, run twice by one Runner.
`inside`: nest_asyncio, loops run inside their own tasks, on epoll and on poll.
Lengths are unique in a process.

The last line of stdout is JSON: `rows` and `server_rows` as in streams.py, each with its tgid,
and `tgids`, all processes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import select
import selectors
import socket
import threading
import time
from typing import Any

import coded
import running
import streams

TASKS, CALLS = 5, 7
RUN = asyncio.run


async def traffic(label: str, tasks: int = TASKS, calls: int = CALLS) -> None:
    """Let tasks with names of their own talk to a server on this loop."""
    server = await asyncio.start_server(streams.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    await coded.together({f"{label}-{n}": streams.several(port, calls) for n in range(tasks)})
    await others_ended()
    server.close()


async def others_ended() -> None:
    """Wait until the server's tasks of this loop are over."""
    await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))


def told() -> dict[str, Any]:
    """Return this process's own part of the truth and forget it."""
    pid = os.getpid()
    part: dict[str, Any] = {"tgids": [pid]}
    for name, rows in streams.ALL_ROWS.items():
        part[name] = [{**row, "tgid": pid} for row in rows]
        rows.clear()
    return part


def threads() -> list[dict[str, Any]]:
    """Run two loops at once."""
    barrier = threading.Barrier(2)

    def run(label: str) -> None:
        barrier.wait()
        RUN(traffic(label, calls=3 * CALLS))

    workers = [threading.Thread(target=run, args=(f"loop{n}",)) for n in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return [told()]


def again() -> list[dict[str, Any]]:
    """Run loops one after the other; what one had as its self-pipe is the next one's socket."""
    for turn in range(13):
        held = [socket.socketpair() for _ in range(turn % 5)]
        RUN(traffic(f"turn{turn}", tasks=3, calls=3))
        for pair in held:
            pair[0].send(b"no loop runs now: this is nobody's await")
            for end in pair:
                end.close()
    return [told()]


def child(write_fd: int, label: str) -> None:
    """Run a loop in a forked process and tell the parent what it did."""
    for rows in streams.ALL_ROWS.values():
        rows.clear()
    RUN(traffic(label))
    with os.fdopen(write_fd, "w") as pipe:
        json.dump(told(), pipe)


def forked(label: str) -> dict[str, Any]:
    """Fork, let the child run a loop, and return its truth."""
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            child(write_fd, label)
        finally:
            os._exit(0)
    os.close(write_fd)
    with os.fdopen(read_fd) as pipe:
        part: dict[str, Any] = json.load(pipe)
    assert os.waitpid(pid, 0)[1] == 0
    return part


def processed(label: str) -> dict[str, Any]:
    """Do the same with multiprocessing."""
    read_fd, write_fd = os.pipe()
    process = multiprocessing.get_context("fork").Process(target=child, args=(write_fd, label))
    process.start()
    os.close(write_fd)
    with os.fdopen(read_fd) as pipe:
        part: dict[str, Any] = json.load(pipe)
    process.join()
    assert process.exitcode == 0
    return part


def fork() -> list[dict[str, Any]]:
    """Fork between two loops, and inside a task of a running one."""
    parts: list[dict[str, Any]] = []

    async def forking() -> None:
        parts.append(forked("in-task"))
        parts.append(processed("multiprocessing"))
        await traffic("afterwards")

    RUN(traffic("before"))
    parts.append(forked("between"))
    RUN(forking())
    return [told(), *parts]


async def nested(port: int, depth: int, label: str) -> None:
    """Begin a call, begin deeper tasks inside it, then send more in the same step."""
    async with streams.Client(port) as client:
        await client.call(0)
        deeper = [
            asyncio.create_task(nested(port, depth - 1, f"{label}{n}"), name=f"{label}{n}")
            for n in range(2 if depth else 0)
        ]
        quick = [asyncio.create_task(asyncio.sleep(0), name="quick") for _ in range(3)]
        done = [asyncio.create_task(at_once(), name="at once") for _ in range(3)]
        await client.call(1)
        await asyncio.gather(*deeper, *quick, *done)


async def at_once() -> None:
    """End in the first step."""


async def eagerly() -> None:
    """Run nested eager tasks, and some whose first step sends."""
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]
    server = await asyncio.start_server(streams.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    await asyncio.create_task(nested(port, 2, "eager"), name="eager")
    clients = [streams.Client(port) for _ in range(5)]
    for client in clients:
        await client.__aenter__()
    mine = streams.Client(port)
    await mine.__aenter__()
    tasks = [
        asyncio.create_task(client.call(2), name=f"first{n}") for n, client in enumerate(clients)
    ]
    await mine.call(3)  # sent in the step in which all of those began
    await asyncio.gather(*tasks)
    for client in (*clients, mine):
        client.writer.close()
    await others_ended()
    server.close()


def eager() -> list[dict[str, Any]]:
    """Run tasks eagerly; Python 3.12 and later."""
    RUN(eagerly())
    return [told()]


def on(selector: type[selectors.BaseSelector]) -> list[dict[str, Any]]:
    """Run a loop on a selector twice, each time with timers, a worker thread and a long answer."""

    async def all_kinds(label: str) -> None:
        await traffic(label)
        await asyncio.sleep(0.003)
        await asyncio.to_thread(time.sleep, 0.003)

    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector())) as runner:
        for turn in range(2):
            runner.run(all_kinds(f"turn{turn}"))
            with socket.socket() as quiet:  # no loop waits here
                select.select([quiet], [], [], 0.001)
    return [told()]


def poll() -> list[dict[str, Any]]:
    """Wait in poll."""
    return on(selectors.PollSelector)


def by_select() -> list[dict[str, Any]]:
    """Wait in select."""
    return on(selectors.SelectSelector)


def inside() -> list[dict[str, Any]]:
    """Run a loop inside its own tasks."""
    import nest_asyncio

    async def calls(port: int, depth: int) -> None:
        async with streams.Client(port) as client:
            await client.call(0)
            if depth:
                asyncio.get_running_loop().run_until_complete(calls(port, depth - 1))
            await client.call(1)  # sent in the step in which the loop ran

    async def main() -> None:
        server = await asyncio.start_server(streams.serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        await asyncio.gather(*(calls(port, depth=2) for _ in range(3)))
        await others_ended()
        server.close()

    for selector in (selectors.EpollSelector, selectors.PollSelector):
        loop = asyncio.SelectorEventLoop(selector())
        nest_asyncio.apply(loop)
        loop.run_until_complete(main())
        loop.close()
    return [told()]


MODES = {mode.__name__: mode for mode in (threads, again, fork, eager, poll, inside)}
MODES["select"] = by_select

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("mode", choices=sorted(MODES))
    running.add_option(parser)
    options = parser.parse_args()
    RUN = running.runner(options.loop)
    parts = MODES[options.mode]()
    truth = {key: [x for part in parts for x in part[key]] for key in parts[0]}
    print(json.dumps({"app": "loops", "tgid": os.getpid(), **truth}))
