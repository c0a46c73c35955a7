"""The shapes in which something lies between the receive and the task. Lengths in bytes."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import TYPE_CHECKING, Any

from truth import answering, peer, receive, together, wait

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

SIZES = {"shielded": 1001, "waited_for": 1003, "gathered": 1007, "called_soon": 1009}
WRAPPERS: dict[str, Callable[[asyncio.Future[None]], Awaitable[Any]]] = {
    "shielded": asyncio.shield,
    "waited_for": lambda future: asyncio.wait_for(future, 5),
    "gathered": asyncio.gather,
    "called_soon": lambda future: future,
}


class Answer(asyncio.Protocol):
    """Sets a future, itself or by call_soon, when the whole answer is here."""

    def __init__(self, length: int, *, soon: bool) -> None:
        """Wait for so many bytes."""
        self.length, self.soon = length, soon
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        """Count."""
        self.length -= len(data)
        if not self.length and self.soon:
            asyncio.get_running_loop().call_soon(self.done.set_result, None)
        elif not self.length:
            self.done.set_result(None)


async def wrapped() -> dict[str, Any]:
    """Await a protocol's future through shield, wait_for, gather and call_soon: one row each."""
    loop = asyncio.get_running_loop()

    async def subject(name: str, sent: int) -> None:
        answer = 5 * sent
        port = peer(answering((sent, answer)))
        transport, protocol = await loop.create_connection(
            lambda: Answer(answer, soon=name == "called_soon"), "127.0.0.1", port
        )
        with wait(name, sent_bytes=sent, recv_bytes=answer):
            transport.write(b"q" * sent)
            await WRAPPERS[name](protocol.done)
        transport.close()

    await together(**{name: subject(name, sent) for name, sent in SIZES.items()})
    return {"count": 4}


async def wrapped_reader() -> dict[str, Any]:
    """Await, through wait_for, a future that a background reader task sets."""
    port = peer(answering((1001, 5001)))
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def background() -> None:
        await reader.readexactly(5001)
        future.set_result(None)
        await asyncio.sleep(0)

    async def subject() -> None:
        with wait("wait_for", sent_bytes=1001, recv_bytes=5001):
            writer.write(b"q" * 1001)
            await asyncio.wait_for(asyncio.shield(future), 5)

    await together(background=background(), wrapped_reader=subject())
    writer.close()
    return {"count": 1}


async def loop_calls() -> dict[str, Any]:
    """Read, write and open with the loop's own socket calls."""
    loop = asyncio.get_running_loop()

    async def sock_recv() -> None:
        port = peer(answering((1001, 5001), delay_s=0.02))  # not before it was asked for
        ours = socket.create_connection(("127.0.0.1", port))
        ours.setblocking(False)
        with ours, wait("sock_recv", sent_bytes=1001, recv_bytes=5001):
            await loop.sock_sendall(ours, b"q" * 1001)
            await loop.sock_recv(ours, 65536)

    async def sock_sendall() -> None:
        length = 16_000_000

        def late(connection: socket.socket) -> None:
            time.sleep(0.03)
            receive(connection, length)

        ours = socket.create_connection(("127.0.0.1", peer(late)))
        ours.setblocking(False)
        with ours, wait("sock_sendall", sent_bytes=length, recv_bytes=0):
            await loop.sock_sendall(ours, b"w" * length)

    async def open_connection() -> None:
        port = peer(lambda connection: connection.recv(1) and None)
        with wait("open_connection", sent_bytes=0, recv_bytes=0):
            _reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()

    await together(sock_recv=sock_recv())
    await together(sock_sendall=sock_sendall())
    await together(open_connection=open_connection())
    return {"count": 3}


async def datagrams() -> dict[str, Any]:
    """Ask a datagram endpoint seven times; each answer is one datagram."""
    loop = asyncio.get_running_loop()
    replies: asyncio.Queue[bytes] = asyncio.Queue()

    class Server(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.DatagramTransport) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, addr: Any) -> None:
            loop.call_later(0.003, self.transport.sendto, b"a" * (4000 + len(data)), addr)

    class Client(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, _addr: Any) -> None:
            replies.put_nowait(data)

    server, _ = await loop.create_datagram_endpoint(Server, local_addr=("127.0.0.1", 0))
    address = server.get_extra_info("sockname")
    client, _ = await loop.create_datagram_endpoint(Client, remote_addr=address)

    async def subject() -> None:
        for call in range(7):
            with wait("datagram", call=call, sent_bytes=1001 + call, recv_bytes=5001 + call):
                client.sendto(b"q" * (1001 + call))
                await replies.get()

    await together(datagrams=subject())
    client.close()
    server.close()
    return {"count": 7}


SHAPES = (wrapped, wrapped_reader, loop_calls, datagrams)
