"""A program that never blocks its loop: tasks that talk to each other, in many short steps.

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


async def main(seconds: float) -> int:
    """Let four clients call."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port, end = server.sockets[0].getsockname()[1], time.monotonic() + seconds
    calls = await asyncio.gather(*(client(port, end) for _ in range(4)))
    server.close()
    return sum(calls)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=2)
    options = parser.parse_args()
    print(os.getpid(), flush=True)
    sys.stdin.readline()
    print(json.dumps({"calls": asyncio.run(main(options.seconds))}))
