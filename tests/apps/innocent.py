"""A program that never blocks its loop: tasks that talk to each other, and many short callbacks.

It says its process id, waits for a line, and then works for so many seconds. The last line of
stdout is JSON: `calls`, how many there were.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time

import running


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back what comes."""
    while data := await reader.read(1 << 12):
        writer.write(data)
    writer.close()


async def client(port: int, end: float) -> int:
    """Call until the time is over; return how often."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    calls = 0
    while time.monotonic() < end:
        writer.write(b"x" * 100)
        await reader.readexactly(100)
        calls += 1
    writer.close()
    return calls


def short() -> None:
    """Be one of many."""
    sum(range(1000))


async def crowd(end: float) -> None:
    """Let each iteration of the loop run many callbacks, a millisecond in all."""
    loop = asyncio.get_running_loop()
    while time.monotonic() < end:
        for _ in range(50):
            loop.call_soon(short)
        await asyncio.sleep(0)


async def main(seconds: float) -> int:
    """Let four clients call."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port, end = server.sockets[0].getsockname()[1], time.monotonic() + seconds
    crowding = asyncio.create_task(crowd(end))
    calls = await asyncio.gather(*(client(port, end) for _ in range(4)))
    await crowding
    server.close()
    return sum(calls)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=2)
    running.add_option(parser)
    options = parser.parse_args()
    print(os.getpid(), flush=True)
    sys.stdin.readline()
    print(json.dumps({"calls": running.runner(options.loop)(main(options.seconds))}))
