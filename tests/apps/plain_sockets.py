"""Ground truth: loop.sock_* on TCP, streams over a Unix socket, datagrams over UDP.

Each request and answer has a length that no other has (a datagram's is small enough for one).
See coded.py for the output.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import tempfile
from pathlib import Path
from typing import Any

import coded
from truth import wait

DATAGRAMS = itertools.count()


async def by_sock_calls(port: int, calls: int) -> None:
    """Call the loop's own methods on a non-blocking socket."""
    loop = asyncio.get_running_loop()
    with socket.socket() as sock:
        sock.setblocking(False)
        await loop.sock_connect(sock, ("127.0.0.1", port))
        for _ in range(calls):
            sent, recv = coded.lengths()
            with wait("sock_call", sent=sent, recv=recv):
                await loop.sock_sendall(sock, coded.request(sent, recv))
                left = recv
                while left:
                    left -= len(await loop.sock_recv(sock, left))


async def by_unix(path: str, calls: int) -> None:
    """Use streams over a Unix socket."""
    reader, writer = await asyncio.open_unix_connection(path)
    for _ in range(calls):
        sent, recv = coded.lengths()
        with wait("unix", sent=sent, recv=recv):
            writer.write(coded.request(sent, recv))
            await reader.readexactly(recv)
    writer.close()


class Echo(asyncio.DatagramProtocol):
    """Sends each datagram back, thrice as long."""

    def connection_made(self, transport: Any) -> None:
        """Keep the transport."""
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Answer."""
        self.transport.sendto(data * 3, addr)


class Answers(asyncio.DatagramProtocol):
    """Sets the future that waits for a datagram."""

    def __init__(self) -> None:
        """Wait for nothing yet."""
        self.waiting: asyncio.Future[bytes] | None = None

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Hand it over."""
        if self.waiting:
            self.waiting.set_result(data)


async def by_datagrams(address: tuple[str, int], calls: int) -> None:
    """Send datagrams and wait for each one's answer."""
    loop = asyncio.get_running_loop()
    transport, answers = await loop.create_datagram_endpoint(Answers, remote_addr=address)
    for _ in range(calls):
        length = 100 + next(DATAGRAMS)
        answers.waiting = loop.create_future()
        with wait("datagram", sent=length, recv=3 * length, exact=True):
            transport.sendto(b"d" * length)
            await answers.waiting
    transport.close()


async def main(tasks: int = 5, calls: int = 7) -> None:
    """Run some tasks of each kind at once."""
    loop = asyncio.get_running_loop()
    server = await asyncio.start_server(coded.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    echo, _ = await loop.create_datagram_endpoint(Echo, local_addr=("127.0.0.1", 0))
    address = echo.get_extra_info("sockname")
    with tempfile.TemporaryDirectory() as folder:
        path = os.fspath(Path(folder) / "socket")
        unix = await asyncio.start_unix_server(coded.serve, path)
        named = {}
        for n in range(tasks):
            named[f"sock-{n}"] = by_sock_calls(port, calls)
            named[f"unix-{n}"] = by_unix(path, calls)
            named[f"udp-{n}"] = by_datagrams(address, calls)
        await coded.together(named)
        unix.close()
    echo.close()
    server.close()


if __name__ == "__main__":
    coded.run(__doc__, main)
    coded.tell("plain_sockets")
