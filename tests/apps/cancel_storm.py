"""Ground truth: tasks cancelled at any moment of their awaits, while others on the loop go on.

A cancelled await's request was sent; its answer may have come or not. Requests and answers have
lengths that no other has. See coded.py for the output.
"""

from __future__ import annotations

import asyncio
import contextlib

import coded
import http_peer
from truth import wait


async def ask(port: int, calls: int) -> None:
    """Post requests over a connection of its own until cancelled."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for _ in range(calls):
            sent, recv = coded.lengths()
            head = f"POST / HTTP/1.1\r\nContent-Length: {sent}\r\nX-Answer: {recv}\r\n\r\n"
            with wait("ask", sent=sent, recv=recv) as noted:
                try:
                    writer.write(head.encode() + b"q" * sent)
                    await reader.readuntil(b"\r\n\r\n")
                    await reader.readexactly(recv)
                except asyncio.CancelledError:
                    del noted["recv"]
                    raise
    finally:
        writer.close()


async def storm(port: int, waves: int, width: int) -> None:
    """Start tasks and cancel each a little later than the one before."""
    for wave in range(waves):
        doomed = [
            asyncio.create_task(ask(port, 40), name=f"doomed-{wave}-{n}") for n in range(width)
        ]
        for task in doomed:
            await asyncio.sleep(0.0007)
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*doomed, return_exceptions=True)


async def main() -> None:
    """Let steady tasks and doomed ones share the loop."""
    server, port = await http_peer.serve()
    named = {f"steady-{n}": ask(port, 13) for n in range(5)}
    await coded.together({**named, "storm": storm(port, waves=7, width=5)})
    server.close()


if __name__ == "__main__":
    coded.run(__doc__, main)
    coded.tell("cancel_storm")
