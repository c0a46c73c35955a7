"""Ground truth: a protocol on uvloop that holds the loop in what libuv calls by itself.

The last line of stdout is JSON: `held`, [begin, end] of each, CLOCK_MONOTONIC ns.
"""

from __future__ import annotations

import asyncio
import json
import os
import time

import uvloop

HELD: list[tuple[int, int]] = []


class Slow(asyncio.Protocol):
    """Sleep, then answer."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Hold the loop before the answer."""
        begin = time.monotonic_ns()
        time.sleep(0.03)
        HELD.append((begin, time.monotonic_ns()))
        self.transport.write(data)  # type: ignore[attr-defined]


async def main() -> None:
    """Ask three times."""
    server = await asyncio.get_running_loop().create_server(Slow, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.sockets[0].getsockname()[1])
    for _ in range(3):
        writer.write(b"x" * 100)
        await reader.readexactly(100)
    writer.close()
    server.close()
    print(json.dumps({"app": "held_protocol", "tgid": os.getpid(), "held": HELD}))


if __name__ == "__main__":
    uvloop.run(main())
