"""The shapes of an await in which who reads, and when, is the point. Lengths in bytes."""

from __future__ import annotations

import asyncio
import mmap
import socket
import subprocess
import sys
import tempfile
import threading
import time
from typing import TYPE_CHECKING, Any

from truth import answering, peer, receive, together, wait

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


async def read_in_task() -> dict[str, Any]:
    """Let add_reader set an event; the task itself calls recv after it resumed."""
    return await _read_in_task("read_in_task", asyncio.Event.wait)


async def wrapped_read_in_task() -> dict[str, Any]:
    """Wait for that event through wait_for, as psycopg does: up to 3.11 in a task of its own."""

    async def patiently(event: asyncio.Event) -> None:
        await asyncio.wait_for(event.wait(), 5)

    return await _read_in_task("wrapped_read_in_task", patiently)


async def _read_in_task(
    name: str, readable: Callable[[asyncio.Event], Awaitable[Any]]
) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    rounds = [(1000 + call, 5000 + 7 * call) for call in range(7)]
    port = peer(answering(*rounds))

    async def subject() -> None:
        sock = socket.create_connection(("127.0.0.1", port))
        sock.setblocking(False)
        for call, (sent, answer) in enumerate(rounds):
            event = asyncio.Event()
            loop.add_reader(sock, event.set)
            with wait("readable", call=call, sent_bytes=sent, recv_bytes=answer):
                sock.send(b"q" * sent)
                await readable(event)
            sock.recv(65536)
            loop.remove_reader(sock)
        sock.close()

    await together(**{name: subject()})
    return {"count": len(rounds)}


async def shared_recv() -> dict[str, Any]:
    """Answer two tasks with one write: one recv that belongs to both rows, whole."""
    loop = asyncio.get_running_loop()
    futures = [loop.create_future(), loop.create_future()]
    reads: list[int] = []

    class Both(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            reads.append(len(data))
            if sum(reads) == 5003 + 5009:
                for future in futures:
                    future.set_result(None)

    port = peer(answering((1001 + 1002, 5003 + 5009)))
    transport, _ = await loop.create_connection(Both, "127.0.0.1", port)

    async def subject(index: int, sent: int) -> None:
        with wait("shared", sent_bytes=sent, recv_bytes=5003 + 5009):
            transport.write(b"q" * sent)
            await futures[index]

    await together(shared_0=subject(0, 1001), shared_1=subject(1, 1002))
    transport.close()
    return {"count": 2, "reads": reads}


async def protocol_callback() -> dict[str, Any]:
    """Echo 23 messages from a protocol without any task: rows of kind callback."""
    lengths = [1000 + call for call in range(23)]

    class Echo(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            assert isinstance(self.transport, asyncio.Transport)
            self.transport.write(data)

    def client(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            for length in lengths:
                connection.sendall(b"q" * length)
                receive(connection, length)

    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0)
    await asyncio.to_thread(client, server.sockets[0].getsockname()[1])
    server.close()
    return {"count": 23, "lengths": lengths}


async def unix() -> dict[str, Any]:
    """Do seven round trips over AF_UNIX streams: no packets, no softirq."""
    rounds = [(1000 + call, 5000 + 7 * call) for call in range(7)]
    ours, theirs = socket.socketpair()

    def serve() -> None:
        with theirs:
            answering(*rounds)(theirs)

    threading.Thread(target=serve, daemon=True).start()

    async def subject() -> None:
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        for call, (sent, answer) in enumerate(rounds):
            with wait("unix", call=call, sent_bytes=sent, recv_bytes=answer):
                writer.write(b"q" * sent)
                await reader.readexactly(answer)
        writer.close()

    await together(unix=subject())
    return {"count": len(rounds)}


# Answers 5 ms after the spinner began, and notes when: in shared memory, which costs the spinner
# no system call to look at.
PEER = """import mmap, socket, sys, time
here = socket.create_server(("127.0.0.1", 0))
print(here.getsockname()[1], flush=True)
shared = memoryview(mmap.mmap(int(sys.argv[1]), 16)).cast("Q")
connection, _ = here.accept()
connection.recv(65536)
while not shared[0]:
    time.sleep(0.0005)
time.sleep(0.005)
connection.sendall(b"a" * 5001)
shared[1] = time.monotonic_ns()
connection.recv(1)
"""


async def busy() -> dict[str, Any]:
    """Let another task spin for 30 ms or more, while an answer waits 20 ms or more to be read."""
    spin: dict[str, Any] = {"task": "spinner"}
    with tempfile.TemporaryFile() as file:
        file.truncate(16)
        shared = memoryview(mmap.mmap(file.fileno(), 16)).cast("Q")
        # A process of its own: a thread would fight with the spinner for the GIL.
        child = subprocess.Popen(  # noqa: ASYNC220 - asyncio's own would add awaits to the truth
            [sys.executable, "-I", "-c", PEER, str(file.fileno())],
            pass_fds=[file.fileno()],
            stdout=subprocess.PIPE,
            text=True,
        )
    with child:
        assert child.stdout
        reader, writer = await asyncio.open_connection("127.0.0.1", int(child.stdout.readline()))

        async def subject() -> None:
            with wait("round trip", sent_bytes=1001, recv_bytes=5001):
                writer.write(b"q" * 1001)
                await reader.readexactly(5001)
            writer.close()

        async def spinner() -> None:
            start_ns = shared[0] = now_ns = time.monotonic_ns()
            until_ns = start_ns + 30_000_000
            while now_ns < until_ns:
                now_ns = time.monotonic_ns()
                sent_ns = shared[1] or min(now_ns, start_ns + 5_000_000_000)  # no answer: give up
                until_ns = max(until_ns, sent_ns + 20_000_000)
            spin.update(start_ns=start_ns, end_ns=now_ns)

        await together(busy=subject(), spinner=spinner())
    return {"count": 1, "spin": spin, "answer_sent_ns": shared[1]}


SHAPES = (read_in_task, wrapped_read_in_task, shared_recv, protocol_callback, unix, busy)
