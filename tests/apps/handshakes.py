"""Ground truth: TLS handshakes in memory (anyio, httpx) and start_tls, one failed, two at a time.

The last line of stdout is JSON: `waits` as in shapes.py, each with `handshake`: start_ns and end_ns
around the calls of do_handshake, outcome; and `port`, the client's, as its peer saw it. While a
`held` handshake goes on, for which its peer waits, a `free` one begins and ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import ssl
import threading
import time
from typing import TYPE_CHECKING, Any

import anyio
import coded
import httpx
import truth
from anyio.streams.tls import TLSStream

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable

HERE, NAME = "127.0.0.1", "localhost"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class End:
    """Both ends of a connection: what the client notes, and when the peer answers."""

    def __init__(self, certificate: str, *, trusts: bool = True, held: bool = False) -> None:
        """Serve one connection."""
        self.noted: dict[str, Any] = {}
        self.begun = asyncio.Event()
        self.gate = threading.Event()
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.server.load_cert_chain(certificate)
        self.client = ssl.create_default_context(cafile=certificate if trusts else None)
        self.client.sslobject_class = self._noting()
        if not held:
            self.gate.set()
        self.port = truth.peer(self._serve)

    def _serve(self, connection: socket.socket) -> None:
        self.noted["port"] = connection.getpeername()[1]
        self.gate.wait()
        with (
            contextlib.suppress(OSError),
            self.server.wrap_socket(connection, server_side=True) as tls,
        ):
            while tls.recv(4096):
                tls.sendall(ANSWER)

    def _noting(self) -> type[ssl.SSLObject]:
        end = self

        class Noting(ssl.SSLObject):
            def do_handshake(self) -> None:
                shake = end.noted.setdefault("handshake", {"outcome": "result"})
                shake.setdefault("start_ns", time.monotonic_ns())
                end.begun.set()
                try:
                    super().do_handshake()
                except ssl.SSLWantReadError:
                    raise
                except ssl.SSLError:
                    shake["outcome"] = "exception"
                    raise
                finally:
                    shake["end_ns"] = time.monotonic_ns()

        return Noting


async def by_anyio(end: End) -> None:
    """Shake hands in memory."""
    stream = await anyio.connect_tcp(HERE, end.port)
    with truth.wait("anyio") as end.noted["wait"], contextlib.suppress(ssl.SSLError):
        stream = await TLSStream.wrap(
            stream, hostname=NAME, ssl_context=end.client, standard_compatible=False
        )
    await stream.aclose()


async def by_httpx(end: End) -> None:
    """Send a request, which opens the connection."""
    async with httpx.AsyncClient(verify=end.client, trust_env=False) as client:
        with truth.wait("httpx") as end.noted["wait"]:
            await client.get(f"https://{NAME}:{end.port}/")


async def by_start_tls(end: End) -> None:
    """Begin TLS on a connection of the loop's own."""
    _reader, writer = await asyncio.open_connection(HERE, end.port)
    with truth.wait("start_tls") as end.noted["wait"], contextlib.suppress(ssl.SSLError):
        await writer.start_tls(end.client, server_hostname=NAME)
    writer.close()


async def nested(way: Callable[[End], Awaitable[None]], held: End, free: End) -> None:
    """Let the free handshake begin and end within the held one."""
    async with asyncio.TaskGroup() as group:
        group.create_task(way(held), name=f"held-{way.__name__}")
        await held.begun.wait()
        await asyncio.create_task(way(free), name=f"free-{way.__name__}")
        held.gate.set()


async def main(certificate: str) -> None:
    """Shake hands in every way."""
    ends = []
    for way in (by_anyio, by_start_tls):
        held, free = End(certificate, held=True), End(certificate)
        wary = End(certificate, trusts=False)
        await nested(way, held, free)
        await asyncio.create_task(way(wary), name=f"wary-{way.__name__}")
        ends += [held, free, wary]
    ends.append(End(certificate))
    await asyncio.create_task(by_httpx(ends[-1]), name="httpx")
    waits = [end.noted.pop("wait") | end.noted for end in ends]
    head = {"app": "handshakes", "tgid": os.getpid(), "count": len(waits)}
    print(json.dumps(head | {"waits": waits}))


if __name__ == "__main__":
    coded.run(__doc__, main, "certificate")
