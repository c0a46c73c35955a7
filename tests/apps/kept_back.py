"""Ground truth: bytes that streams keep back in a queue, and tasks that share such a queue.

uvloop sends them when its socket has room again; before 0.23 it sends nearly all of them only after
the steps of the loop's iteration. Every request has a length that no other has. See coded.py for
the output; `answers` are the lengths that callbacks wrote without any task.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import coded
from coded import HEADER
from truth import peer, receive, wait

if TYPE_CHECKING:
    from collections.abc import Awaitable

ANSWERS: list[int] = []


class Waiting(asyncio.Protocol):
    """Sets a future for each answer, of one byte."""

    def __init__(self) -> None:
        """Wait for nothing yet."""
        self.futures: deque[asyncio.Future[None]] = deque()

    def data_received(self, data: bytes) -> None:
        """Set as many as answers came."""
        for _ in data:
            self.futures.popleft().set_result(None)


class Answering(asyncio.Protocol):
    """Answers each request in the callback that brought its last byte."""

    def connection_made(self, transport: Any) -> None:
        """Keep the transport."""
        self.transport, self.buffer = transport, b""

    def data_received(self, data: bytes) -> None:
        """Answer if the request is whole."""
        self.buffer += data
        length, answer = HEADER.unpack_from(self.buffer)
        if len(self.buffer) == length:
            self.buffer = b""
            ANSWERS.append(answer)
            self.transport.write(b"a" * answer)


def late(connection: socket.socket) -> None:
    """Begin to read when nothing more fits into the connection; then answer."""
    time.sleep(0.05)
    while head := connection.recv(HEADER.size, socket.MSG_WAITALL):
        length, answer = HEADER.unpack(head)
        receive(connection, length - HEADER.size)
        connection.sendall(b"a" * answer)


async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read all there is."""
    await reader.read()
    writer.close()


async def shared(port: int, what: str, tasks: int, more: int = 0, turns: int = 5) -> None:
    """Let tasks write to one connection in the same iteration of the loop."""
    loop, waiting = asyncio.get_running_loop(), Waiting()
    transport, _ = await loop.create_connection(lambda: waiting, "127.0.0.1", port)

    async def ask() -> None:
        sent = more + coded.lengths()[0]
        waiting.futures.append(future := loop.create_future())
        with wait(what, sent=sent, exact=True):
            transport.write(coded.request(sent, 1))
            await future

    for turn in range(turns):
        await coded.together({f"{what}-{turn}-{n}": ask() for n in range(tasks)})
    transport.close()


async def in_lines(port: int) -> None:
    """Write in several pieces of several kinds, some too long to be kept back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for more in (0, 100_000):
        for kind in (list, tuple, iter):
            sent, recv = coded.lengths()
            request = bytearray(coded.request(sent + more, recv))
            with wait("lines", sent=sent + more, recv=recv, exact=True):
                writer.write(request[:3])
                writer.transport.writelines(kind([memoryview(request)[3:500], b""]))
                writer.writelines([request[500:501], bytes(request[501:])])
                await reader.readexactly(recv)
    writer.close()


async def asking(port: int, calls: int = 5) -> None:
    """Ask a server that has no tasks."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(calls):
        sent, recv = coded.lengths()
        with wait("asked", sent=sent, recv=recv, exact=True):
            writer.write(coded.request(sent, recv))
            await reader.readexactly(recv)
    writer.close()


async def leaving(port: int) -> None:
    """Write and close at once."""
    for _ in range(5):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        sent, _ = coded.lengths()
        with wait("left", sent=sent, exact=True):
            writer.write(b"l" * sent)
            writer.close()
            await writer.wait_closed()


async def main() -> None:
    """Run each kind."""
    loop = asyncio.get_running_loop()
    serving = await asyncio.start_server(coded.serve, "127.0.0.1", 0)
    swallowing = await asyncio.start_server(swallow, "127.0.0.1", 0)
    answering = await loop.create_server(Answering, "127.0.0.1", 0)
    serve, swallow_, answer = (
        server.sockets[0].getsockname()[1] for server in (serving, swallowing, answering)
    )
    await shared(serve, "shared", tasks=3)  # little enough to be kept back
    named: dict[str, Awaitable[None]] = {"lines": in_lines(serve), "leaving": leaving(swallow_)}
    await coded.together({**named, **{f"asking-{n}": asking(answer) for n in range(5)}})
    await shared(peer(late), "late", tasks=4, more=3_000_000, turns=1)
    for server in (serving, swallowing, answering):
        server.close()


if __name__ == "__main__":
    coded.run(__doc__, main)
    coded.tell("kept_back", answers=ANSWERS)
