"""Ground truth: an asyncpg pool of 4 connections under 32 tasks, exact bytes for each query.

Each query carries a text and asks for an answer whose lengths no other query has. What really
crossed the socket is read from the kernel (TCP_INFO's bytes_sent and bytes_received) before and
after the query, on a connection that nobody else uses meanwhile.

The last line of stdout is JSON: `rows` with task, call, sent_bytes, recv_bytes (null where the
task was cancelled: the answer came later), outcome, first (a first statement on its connection:
two round trips) and port (of our end of the connection).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import socket
import struct
from itertools import count
from typing import Any

import asyncpg
import coded
import running

QUERY = "SELECT repeat('x', $1::int) WHERE $2::text IS NOT NULL"
SLEEP = "SELECT pg_sleep(0.3) WHERE $1::text IS NOT NULL"
SERIAL = count()
ROWS: list[dict[str, Any]] = []
SEEN: set[tuple[int, str]] = set()


def counters(sock: Any) -> tuple[int, int]:
    """Return (bytes sent, bytes received) of a TCP socket since it was made."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    (received,) = struct.unpack_from("=Q", info, 128)  # struct tcp_info: tcpi_bytes_received
    sent, again = struct.unpack_from("=QQ", info, 200)  # tcpi_bytes_sent, tcpi_bytes_retrans
    return sent - again, received


async def query(pool: Any, call: int, text: str = QUERY) -> None:
    """Run one query on a free connection and note what it sent and received."""
    task = asyncio.current_task()
    serial = next(SERIAL)
    padding = "q" * (1000 + 64 * serial)
    arguments = (padding,) if text is SLEEP else (2000 + 96 * serial, padding)
    async with pool.acquire() as conn:
        sock = conn._con._transport.get_extra_info("socket")
        port = sock.getsockname()[1]
        row = {"task": task.get_name() if task else "", "call": call, "port": port}
        row["first"] = (port, text) not in SEEN
        SEEN.add((port, text))
        sent, received = counters(sock)
        try:
            await conn.fetch(text, *arguments)
        except asyncio.CancelledError:
            sent_now, _ = counters(sock)
            # asyncpg may have closed the socket's file; the counters then say nothing.
            ROWS.append(
                {**row, "sent_bytes": sent_now - sent, "recv_bytes": None, "outcome": "cancelled"}
            )
            raise
        sent_now, received_now = counters(sock)
        row |= {"sent_bytes": sent_now - sent, "recv_bytes": received_now - received}
        ROWS.append({**row, "outcome": "ok"})


async def several(pool: Any, calls: int) -> None:
    """Run queries one after the other, each on whichever connection is free."""
    for call in range(calls):
        await query(pool, call)


async def main(dsn: str, tasks: int, calls: int) -> None:
    """Run every way of starting and ending tasks over the same few connections."""
    async with asyncpg.create_pool(dsn, min_size=4, max_size=4) as pool:
        await coded.together({f"pool-{n:02d}": several(pool, calls) for n in range(tasks)})
        for _ in range(3):  # short lives, one name: ids must not be mixed up
            churn = [asyncio.create_task(several(pool, 1), name="churn") for _ in range(7)]
            await asyncio.wait(churn)
        await asyncio.gather(*(several(pool, 2) for _ in range(5)))
        await asyncio.wait_for(several(pool, 2), timeout=5)
        for _ in range(3):
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(query(pool, 0, SLEEP), timeout=0.05)
        await several(pool, 1)
    print(json.dumps({"app": "pool", "tgid": os.getpid(), "rows": ROWS}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--dsn", required=True)
    parser.add_argument("--tasks", type=int, default=32)
    parser.add_argument("--calls", type=int, default=11)
    running.add_option(parser)
    options = parser.parse_args()
    running.runner(options.loop)(main(options.dsn, options.tasks, options.calls))
