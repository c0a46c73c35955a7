"""Ground truth: anyio on asyncio: TCP and Unix streams, UDP, cancel scopes, worker threads.

Requests and answers have lengths that no other has (a datagram's is small enough for one). See
coded.py for the output; `cut` and `slept` say how often a cancel scope and a thread were used.
"""

from __future__ import annotations

import itertools
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import coded
from anyio import to_thread
from anyio.streams.buffered import BufferedByteReceiveStream
from truth import wait

if TYPE_CHECKING:
    from anyio.abc import ByteStream, UDPSocket

DATAGRAMS = itertools.count()
USED = {"cut": 0, "slept": 0}


async def serve(stream: ByteStream) -> None:
    """Answer each request with as many bytes as it asks for."""
    async with stream:
        source = BufferedByteReceiveStream(stream)
        while True:
            try:
                head = await source.receive_exactly(coded.HEADER.size)
            except anyio.IncompleteRead:
                return
            length, answer = coded.HEADER.unpack(head)
            await source.receive_exactly(length - coded.HEADER.size)
            await stream.send(b"a" * answer)


async def several(stream: ByteStream, calls: int) -> None:
    """Make calls one after the other; between them wait in vain, and let a thread sleep."""
    async with stream:
        for _ in range(calls):
            sent, recv = coded.lengths()
            with wait("call", sent=sent, recv=recv):
                await stream.send(coded.request(sent, recv))
                left = recv
                while left:
                    left -= len(await stream.receive(left))
            with anyio.move_on_after(0.002) as scope, wait("cut", sent=0, recv=0, exact=True):
                await stream.receive()
            USED["cut"] += scope.cancelled_caught
            with wait("thread", sent=0, recv=0, exact=True):
                await to_thread.run_sync(time.sleep, 0.001)
            USED["slept"] += 1


async def by_tcp(port: int, calls: int) -> None:
    """Use a TCP connection."""
    await several(await anyio.connect_tcp("127.0.0.1", port), calls)


async def by_unix(path: str, calls: int) -> None:
    """Use a Unix socket."""
    await several(await anyio.connect_unix(path), calls)


async def by_datagrams(port: int, calls: int) -> None:
    """Send datagrams and wait for each one's answer."""
    async with await anyio.create_connected_udp_socket("127.0.0.1", port) as udp:
        for _ in range(calls):
            length = 100 + next(DATAGRAMS)
            with wait("datagram", sent=length, recv=3 * length, exact=True):
                await udp.send(b"d" * length)
                await udp.receive()


async def echo(udp: UDPSocket) -> None:
    """Send each datagram back, thrice as long, once its sender waits: it yields twice before."""
    async for data, address in udp:
        await anyio.sleep(0.005)
        await udp.send((data * 3, address))


async def main(tasks: int = 4, calls: int = 5) -> None:
    """Run some tasks of each kind at once."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    udp = await anyio.create_udp_socket(local_host="127.0.0.1")
    udp_port = udp.extra(anyio.abc.SocketAttribute.local_port)
    with tempfile.TemporaryDirectory() as folder:
        path = os.fspath(Path(folder) / "socket")
        unix = await anyio.create_unix_listener(path)
        async with anyio.create_task_group() as servers:
            servers.start_soon(listener.serve, serve)
            servers.start_soon(unix.serve, serve)
            servers.start_soon(echo, udp)
            async with anyio.create_task_group() as clients:
                for n in range(tasks):
                    clients.start_soon(by_tcp, port, calls, name=f"tcp-{n}")
                    clients.start_soon(by_unix, path, calls, name=f"unix-{n}")
                    clients.start_soon(by_datagrams, udp_port, calls, name=f"udp-{n}")
            servers.cancel_scope.cancel()
        await unix.aclose()
    await udp.aclose()
    await listener.aclose()


if __name__ == "__main__":
    coded.run(__doc__, main)
    coded.tell("anyio_streams", used=USED)
