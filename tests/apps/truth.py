"""What the shapes share: a note of each await, and peers on blocking sockets in threads."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

WAITS: list[dict[str, Any]] = []


@contextlib.contextmanager
def wait(what: str, **facts: Any) -> Iterator[dict[str, Any]]:
    """Note one await: the running task, CLOCK_MONOTONIC ns around it, how it ended.

    The row of a trace lies within a few µs of start_ns and end_ns: these are read in the task,
    the row's own times at the edges of its steps.
    """
    task = asyncio.current_task()
    row = {"task": task.get_name() if task else "", "what": what, "outcome": "ok", **facts}
    WAITS.append(row)
    row["start_ns"] = time.monotonic_ns()
    try:
        yield row
    except asyncio.CancelledError:
        row["outcome"] = "cancelled"
        raise
    except Exception:
        row["outcome"] = "exception"
        raise
    finally:
        row["end_ns"] = time.monotonic_ns()


async def together(**tasks: Coroutine[Any, Any, Any]) -> None:
    """Run coroutines as tasks under the given names, in the given order."""
    async with asyncio.TaskGroup() as group:
        for name, coroutine in tasks.items():
            group.create_task(coroutine, name=name)


async def one_by_one(*subjects: Callable[[], Coroutine[Any, Any, None]]) -> int:
    """Run each subject as a task under its own name; return how many there were."""
    for subject in subjects:
        await together(**{subject.__name__: subject()})
    return len(subjects)


def peer(handler: Callable[[socket.socket], None], connections: int = 1) -> int:
    """Serve connections one after the other in a thread; return the port on 127.0.0.1."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listener:
            for _ in range(connections):
                connection, _address = listener.accept()
                with connection:
                    handler(connection)

    threading.Thread(target=serve, name="peer", daemon=True).start()
    return int(listener.getsockname()[1])


def receive(connection: socket.socket, length: int) -> None:
    """Receive exactly so many bytes."""
    while length > 0:
        length -= len(connection.recv(min(length, 65536))) or length


def answering(*rounds: tuple[int, int], delay_s: float = 0.003) -> Callable[[socket.socket], None]:
    """Return a handler that answers requests of known length after a delay, in one write each."""

    def handler(connection: socket.socket) -> None:
        for request, answer in rounds:
            receive(connection, request)
            time.sleep(delay_s)
            connection.sendall(b"a" * answer)
        connection.recv(1)  # until the client closes

    return handler
