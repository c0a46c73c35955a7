"""The shapes of an await that connect, write and go to a server. Lengths in bytes."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

from truth import answering, peer, receive, together, wait

sys.path.append(str(Path(__file__).with_name("site-packages")))
import tinydriver


async def connect() -> dict[str, Any]:
    """Make five connections with loop.sock_connect."""
    loop = asyncio.get_running_loop()

    async def subject(port: int) -> None:
        for call in range(5):
            with socket.socket() as sock:
                sock.setblocking(False)
                with wait("connect", call=call):
                    await loop.sock_connect(sock, ("127.0.0.1", port))

    await together(connect=subject(peer(lambda _connection: None, connections=5)))
    return {"count": 5}


async def accept() -> dict[str, Any]:
    """Accept three connections with loop.sock_accept; each comes 20 ms after the last.

    Nothing is sent on them, nor are they closed meanwhile: only the listener can become readable.
    """
    loop = asyncio.get_running_loop()
    kept: list[socket.socket] = []

    def clients(port: int) -> None:
        for _ in range(3):
            time.sleep(0.02)
            kept.append(socket.create_connection(("127.0.0.1", port)))

    async def subject() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setblocking(False)
            port = listener.getsockname()[1]
            threading.Thread(target=clients, args=(port,), daemon=True).start()
            for call in range(3):
                with wait("accept", call=call):
                    connection, _address = await loop.sock_accept(listener)
                connection.close()

    await together(accept=subject())
    for connection in kept:
        connection.close()
    return {"count": 3}


async def write_only() -> dict[str, Any]:
    """Drain 16 MB towards a reader that begins 30 ms late."""
    length = 16_000_000

    def slow_reader(connection: socket.socket) -> None:
        time.sleep(0.03)
        receive(connection, length)

    async def subject() -> None:
        _reader, writer = await asyncio.open_connection("127.0.0.1", peer(slow_reader))
        writer.transport.set_write_buffer_limits(high=0)  # drain waits until all is sent
        with wait("drain", sent_bytes=length, recv_bytes=0):
            writer.write(b"w" * length)
            await writer.drain()
        writer.close()

    await together(write_only=subject())
    return {"count": 1}


async def _exchange(name: str, sent: int, answer: int) -> dict[str, Any]:
    port = peer(answering((sent, answer)))

    async def subject() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with wait("round trip", sent_bytes=sent, recv_bytes=answer, round_trips=1):
            writer.write(b"q" * sent)
            await reader.readexactly(answer)
        writer.close()

    await together(**{name: subject()})
    return {"count": 1}


async def several_recvs() -> dict[str, Any]:
    """Await one answer of 3 MB: many recvs, one row."""
    return await _exchange("several_recvs", 1001, 3_000_000)


async def several_trips() -> dict[str, Any]:
    """Call a library coroutine that goes to the server twice: one row, two round trips."""
    rounds = [(1001, 5001), (1003, 5003)]
    port = peer(answering(*rounds))

    async def subject() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with wait("query", sent_bytes=2004, recv_bytes=10004, round_trips=2):
            await tinydriver.query(reader, writer, rounds)
        writer.close()

    await together(several_trips=subject())
    return {"count": 1}


SHAPES = (connect, accept, write_only, several_recvs, several_trips)
