"""Ground truth: how awaits come to their connections; the program notes each part as it happens.

The last line of stdout is JSON: `count`, and `waits` as in shapes.py, each with `parts`: what,
outcome, start_ns and end_ns of resolve (inside getaddrinfo) and handshake (from the first call of
do_handshake to the last one's end), start_ns of connect (before its call).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import json
import os
import socket
import ssl
import time
from typing import Any

import truth

HERE, NAME = "127.0.0.1", "localhost"
PARTS: list[dict[str, Any]] = []  # of the await that goes on


def note(what: str) -> dict[str, Any]:
    """Note that a part begins."""
    part = {"what": what, "outcome": "result", "start_ns": time.monotonic_ns()}
    PARTS.append(part)
    return part


_getaddrinfo = socket.getaddrinfo


@functools.wraps(_getaddrinfo)
def noting_getaddrinfo(*args: Any, **kwargs: Any) -> Any:
    """Resolve a name."""
    part = note("resolve")
    found = _getaddrinfo(*args, **kwargs)
    part["end_ns"] = time.monotonic_ns()
    return found


class NotingSSL(ssl.SSLObject):
    """What asyncio shakes hands with."""

    part: dict[str, Any] | None = None

    def do_handshake(self) -> None:
        """Go on with the handshake; it is over if nothing more is wanted."""
        self.part = self.part or note("handshake")
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError:
            self.part["outcome"] = "exception"
            raise
        finally:
            self.part["end_ns"] = time.monotonic_ns()


def encrypted(context: ssl.SSLContext) -> int:
    """Serve one connection over TLS in a thread; return the port."""

    def handler(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True) as tls:
            tls.recv(1)

    return truth.peer(handler)


def plain() -> int:
    """Serve one connection, an answer to a request, in a thread; return the port."""
    return truth.peer(truth.answering((1001, 5003)))


def refusing() -> int:
    """Return a port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def noting_connects(loop: asyncio.AbstractEventLoop) -> None:
    """Let a loop note when it begins to connect; no frame of ours is awaited."""
    connect = loop.sock_connect

    def sock_connect(sock: socket.socket, address: Any) -> Any:
        if PARTS and PARTS[-1]["what"] == "connect":
            PARTS[-1]["outcome"] = "exception"  # so the name's next address is tried
        note("connect")
        return connect(sock, address)

    loop.sock_connect = sock_connect  # type: ignore[method-assign]


async def opened(what: str, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    """Open a connection and note the await."""
    PARTS.clear()
    with truth.wait(what) as noted:
        try:
            return await asyncio.open_connection(*args, **kwargs)
        finally:
            noted["parts"] = PARTS.copy()


class Ways:
    """The ways to come to a connection."""

    def __init__(self, certificate: str) -> None:
        """Make the contexts of both sides."""
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.server.load_cert_chain(certificate)
        self.trusting = ssl.create_default_context(cafile=certificate)
        self.wary = ssl.create_default_context()
        self.trusting.sslobject_class = self.wary.sslobject_class = NotingSSL

    async def numeric(self) -> None:
        """Connect to an address, and use the connection."""
        reader, writer = await opened("numeric", HERE, plain())
        with truth.wait("reused", parts=[]):
            writer.write(b"q" * 1001)
            await reader.readexactly(5003)
        writer.close()

    async def resolved(self) -> None:
        """Connect to a name."""
        _reader, writer = await opened("resolved", NAME, plain())
        writer.close()

    async def secured(self) -> None:
        """Connect to a name over TLS."""
        kwargs = {"ssl": self.trusting}
        _reader, writer = await opened("secured", NAME, encrypted(self.server), **kwargs)
        writer.close()

    async def upgraded(self) -> None:
        """Begin TLS on a connection."""
        _reader, writer = await opened("to be upgraded", HERE, encrypted(self.server))
        PARTS.clear()
        with truth.wait("upgraded") as noted:
            await writer.start_tls(self.trusting, server_hostname=NAME)
        noted["parts"] = PARTS.copy()
        writer.close()

    async def refused(self) -> None:
        """Connect to where nobody listens."""
        with contextlib.suppress(ConnectionRefusedError):
            await opened("refused", HERE, refusing())
        truth.WAITS[-1]["parts"][-1]["outcome"] = "exception"

    async def distrusted(self) -> None:
        """Refuse a server's certificate."""
        kwargs = {"ssl": self.wary, "server_hostname": NAME}
        with contextlib.suppress(ssl.SSLCertVerificationError):
            await opened("distrusted", HERE, encrypted(self.server), **kwargs)

    async def by_child(self) -> None:
        """Wait for a task that connects."""
        PARTS.clear()
        with truth.wait("child", by="child") as noted:
            child = asyncio.create_task(asyncio.open_connection(NAME, plain()), name="child")
            _reader, writer = await child
        noted["parts"] = PARTS.copy()
        writer.close()

    async def by_children(self) -> None:
        """Wait for several tasks that connect: none of them is this await's."""
        PARTS.clear()
        with truth.wait("children", parts=[]):
            streams = await asyncio.gather(
                *(asyncio.open_connection(HERE, port) for port in (plain(), plain()))
            )
        for _reader, writer in streams:
            writer.close()


async def main(certificate: str) -> None:
    """Open connections in every way, one after the other."""
    noting_connects(asyncio.get_running_loop())
    ways = Ways(certificate)
    good = (ways.numeric, ways.resolved, ways.secured, ways.upgraded)
    await truth.one_by_one(*good, ways.refused, ways.distrusted, ways.by_child, ways.by_children)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--certificate", required=True)
    socket.getaddrinfo = noting_getaddrinfo
    asyncio.run(main(parser.parse_args().certificate))
    waits = truth.WAITS
    print(json.dumps({"app": "setups", "tgid": os.getpid(), "count": len(waits), "waits": waits}))
