"""Ground truth: many short tasks of one name and one coroutine, each gone before the next wave.

Their addresses come back at once, so neither name nor address tells them apart. The lengths of
each task's calls do: no other task has them.

The last line of stdout is JSON: `lives`, one for each task, the [sent, received] bytes of its
calls in order.
"""

from __future__ import annotations

import asyncio
import json
import os
from itertools import count

import coded

SERIAL = count()
LIVES: list[list[tuple[int, int]]] = []


async def live(port: int, calls: int) -> None:
    """Make a few calls over a connection of its own."""
    life: list[tuple[int, int]] = []
    LIVES.append(life)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(calls):
        serial = next(SERIAL)
        sent, recv = 1000 + serial, 5000 + 7 * serial
        writer.write(coded.request(sent, recv))
        await reader.readexactly(recv)
        life.append((sent, recv))
    writer.close()


async def main(waves: int = 53, width: int = 7) -> None:
    """Let waves of tasks come and go."""
    server = await asyncio.start_server(coded.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    for wave in range(waves):
        tasks = [asyncio.create_task(live(port, 1 + wave % 3), name="churn") for _ in range(width)]
        await asyncio.wait(tasks)
        for task in tasks:
            task.result()
        del task, tasks
    server.close()


if __name__ == "__main__":
    coded.run(__doc__, main)
    print(json.dumps({"app": "churn", "tgid": os.getpid(), "lives": LIVES}))
