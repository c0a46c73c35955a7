"""Let uvloop register sockets: connections that answer each other in one process.

The last line of stdout is JSON: `tgid` and `io_uring`, whether libuv has a ring for its epoll.
"""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import uvloop

CLIENTS = 7


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back what comes."""
    while data := await reader.read(100):
        writer.write(data)
    writer.close()


async def ask(port: int) -> None:
    """Ask thrice."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(3):
        writer.write(b"question")
        await reader.readexactly(8)
    writer.close()


def has_ring() -> bool:
    """Say whether this process has an io_uring."""
    links = [link.readlink() for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    return any("io_uring" in str(link) for link in links)


async def main() -> None:
    """Run the server and its clients."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    await asyncio.gather(*(ask(port) for _ in range(CLIENTS)))
    server.close()
    print(json.dumps({"tgid": os.getpid(), "io_uring": has_ring()}))


if __name__ == "__main__":
    uvloop.install()
    asyncio.run(main())
