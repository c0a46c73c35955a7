"""Ground truth: worker threads that send and receive for the tasks that gave them their calls.

Tasks hand blocking calls to a few workers with asyncio.to_thread and with run_in_executor, more
than there are workers; others talk over the loop meanwhile. Requests and answers have lengths that
no other has. See coded.py for the output; `works` has task, sent and recv of each worker's call.
"""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import coded
from truth import wait

WORKS: list[dict[str, Any]] = []


def ask(port: int, sent: int, recv: int) -> None:
    """Post one request on a blocking socket and receive its answer: nothing the loop knows of."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(coded.request(sent, recv))
        left = recv
        while left:
            left -= len(connection.recv(left))


async def by_threads(port: int, calls: int, name: str) -> None:
    """Give away calls in both ways, one after the other."""
    loop = asyncio.get_running_loop()
    for call in range(calls):
        sent, recv = coded.lengths()
        if call % 2:
            await loop.run_in_executor(None, ask, port, sent, recv)
        else:
            await asyncio.to_thread(ask, port, sent, recv)
        WORKS.append({"task": name, "sent": sent, "recv": recv})


async def by_loop(port: int, calls: int) -> None:
    """Call over the loop."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(calls):
        sent, recv = coded.lengths()
        with wait("by_loop", sent=sent, recv=recv):
            writer.write(coded.request(sent, recv))
            await reader.readexactly(recv)
    writer.close()


async def main(tasks: int = 8, calls: int = 11) -> None:
    """Let both kinds of tasks share the loop; 3 workers serve the first kind."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(3))
    server = await asyncio.start_server(coded.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    named = {f"loop-{n}": by_loop(port, calls) for n in range(tasks)}
    for name in (f"thread-{n}" for n in range(tasks)):
        named[name] = by_threads(port, calls, name)
    await coded.together(named)
    server.close()


if __name__ == "__main__":
    coded.run(__doc__, main)
    coded.tell("to_thread", works=WORKS)
