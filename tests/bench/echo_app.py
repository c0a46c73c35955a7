"""Echo 64 bytes over asyncio streams: a server process, a client process, 8 connections.

The worst case for a tracer: no work but system calls and wake-ups, both ends busy all the time.

The last line of stdout is JSON: `round_trips` and the `seconds` they took, after a warm-up of
`warm_up` round trips more over the same connections.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time

CONNECTIONS = 8
PACED = 20  # round trips of a connection between two looks at the clock
MESSAGE = b"e" * 64


async def serve() -> None:
    """Print the port, echo until all clients have come and gone."""
    gone = asyncio.Semaphore(0)

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(len(MESSAGE)):
            writer.write(data)
        writer.close()
        gone.release()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    for _ in range(CONNECTIONS):
        await gone.acquire()
    server.close()


async def call(port: int, round_trips: int, per_second: float) -> None:
    """Send and await so many messages over all connections, and print how long it took."""
    streams = [await asyncio.open_connection("127.0.0.1", port) for _ in range(CONNECTIONS)]

    async def several(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, each: int
    ) -> None:
        began = time.perf_counter()
        for number in range(each):
            if per_second and number % PACED == 0:
                due = began + number * CONNECTIONS / per_second
                await asyncio.sleep(max(0, due - time.perf_counter()))
            writer.write(MESSAGE)
            await reader.readexactly(len(MESSAGE))

    each = max(10, round_trips // CONNECTIONS)
    await asyncio.gather(*(several(*stream, each // 10) for stream in streams))
    started = time.perf_counter()
    await asyncio.gather(*(several(*stream, each) for stream in streams))
    seconds = time.perf_counter() - started
    for _, writer in streams:
        writer.close()
    done = {"round_trips": each * CONNECTIONS, "warm_up": each // 10 * CONNECTIONS}
    print(json.dumps({**done, "seconds": seconds}))


def both(round_trips: int, per_second: float) -> None:
    """Run the server in a process of its own and the client in this one."""
    command = [sys.executable, __file__, "--role", "server"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        try:
            asyncio.run(call(int(server.stdout.readline()), round_trips, per_second))
        except BaseException:
            server.terminate()
            raise


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--role", choices=("both", "server", "client"), default="both")
    parser.add_argument("--port", type=int, help="of the server; the client needs it")
    parser.add_argument("--round-trips", type=int, default=48_000)
    parser.add_argument("--per-second", type=float, default=0, help="at most; 0: no limit")
    options = parser.parse_args()
    if options.role == "both":
        both(options.round_trips, options.per_second)
    elif options.role == "server":
        asyncio.run(serve())
    elif options.port is None:
        parser.error("--role client needs --port")
    else:
        asyncio.run(call(options.port, options.round_trips, options.per_second))
