"""A small HTTP/1.1 server: answers each request with as many bytes as its X-Answer header asks."""

from __future__ import annotations

import asyncio

HEAD = "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n"


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve one connection until the client closes it."""
    while True:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            lines = (line.partition(":") for line in head.splitlines() if ":" in line)
            fields = {key: value.strip() for key, _colon, value in lines}
            await reader.readexactly(int(fields.get("content-length", 0)))
        except (asyncio.IncompleteReadError, ConnectionError):
            break
        length = int(fields["x-answer"])
        writer.write(HEAD.format(length).encode() + b"a" * length)
    writer.close()


async def serve() -> tuple[asyncio.AbstractServer, int]:
    """Start the server on a free port."""
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    return server, int(server.sockets[0].getsockname()[1])
