"""The shape of awaits whose steps and receives make system calls that are no network's."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from typing import TYPE_CHECKING, Any

from truth import peer, receive, together, wait

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

ANSWER = 5000  # bytes in each of an answer's two parts
IN_STEP, IN_RECEIVE = 7, 5


def in_parts(connection: socket.socket) -> None:
    """Answer a request in two parts, send a third that nobody waits for, wait for the end."""
    receive(connection, 1000)
    for _ in range(3):
        time.sleep(0.02)
        connection.sendall(b"a" * ANSWER)
    connection.recv(1)


async def hidden() -> dict[str, Any]:
    """Read a file in steps, write it in receives, flush it in a timer's callback."""
    loop = asyncio.get_running_loop()
    futures = [loop.create_future(), loop.create_future()]
    over, reads = loop.create_future(), []
    with tempfile.TemporaryFile() as file:

        def times(count: int, call: Callable[[], Any]) -> None:
            for _ in range(count):
                call()

        def look() -> bytes:
            return os.pread(file.fileno(), 1, 0)

        class Writing(asyncio.Protocol):
            def data_received(self, data: bytes) -> None:
                times(IN_RECEIVE, lambda: os.pwrite(file.fileno(), b"x", 0))
                reads.append(len(data))
                if sum(reads) == 2 * ANSWER:
                    for future in futures:
                        future.set_result(None)
                if sum(reads) == 3 * ANSWER:
                    loop.call_later(0.01, over.set_result, None)

        transport, _ = await loop.create_connection(Writing, "127.0.0.1", peer(in_parts))

        def flush(future: asyncio.Future[None]) -> None:
            times(11, lambda: os.fdatasync(file.fileno()))
            future.set_result(None)

        async def subject(index: int) -> None:
            times(2, look)  # before the first await: a part of its row
            with wait("shared") as noted:
                times(IN_STEP, look)
                transport.write(b"q" * 500)
                await futures[index]
            noted["syscalls"] = {"pread64": IN_STEP + 2, "pwrite64": IN_RECEIVE * len(reads)}
            later = loop.create_future()
            loop.call_later(0.01, flush, later)
            with wait("timer", syscalls={"pread64": IN_STEP + 4}):
                times(IN_STEP + 4, look)
                await later
            times(13, look)  # behind the last await

        await together(hidden_0=subject(0), hidden_1=subject(1))
        await over
        transport.close()
    return {"count": 4, "callback": {"pwrite64": IN_RECEIVE}}


SHAPES = (hidden,)
