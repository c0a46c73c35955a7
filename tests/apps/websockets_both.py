"""Ground truth: websockets, a server and clients on one loop.

Each message and its answer have lengths that no other has. See coded.py for the output.
"""

from __future__ import annotations

from typing import Any

import coded
import websockets
from truth import wait


async def answer(connection: Any, *_path: str) -> None:
    """Answer each message with as many bytes as it begins with."""
    async for message in connection:
        await connection.send(b"a" * int(message.partition(b" ")[0]))


async def several(url: str, calls: int) -> None:
    """Send one message after the other over a connection of its own."""
    async with websockets.connect(url, max_size=None, compression=None) as connection:
        for _ in range(calls):
            sent, recv = coded.lengths()
            with wait("exchange", sent=sent, recv=recv):
                await connection.send(b"%d ".ljust(sent, b"q") % recv)
                assert len(await connection.recv()) == recv


async def main(tasks: int = 11, calls: int = 7) -> None:
    """Let each task have a connection."""
    serving = websockets.serve(answer, "127.0.0.1", 0, max_size=None, compression=None)
    async with serving as server:
        port = next(iter(server.sockets)).getsockname()[1]
        url = f"ws://127.0.0.1:{port}/"
        await coded.together({f"ws-{n:02d}": several(url, calls) for n in range(tasks)})


if __name__ == "__main__":
    coded.run(__doc__, main)
    coded.tell("websockets_both")
