"""Ground truth as it happens: calls over one connection, each written down when it has ended.

Whoever traces this may die at any moment; what had happened until then is known all the same.
Each line of stdout is JSON: `sent_bytes` and `recv_bytes` (no other call has these), `start_ns` and
`end_ns` (CLOCK_MONOTONIC) of a call; the last one is {"calls": how many}.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import struct
import time

HEADER = struct.Struct("!II")  # length of this request, length of the wanted answer


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer each request with as many bytes as it asks for."""
    try:
        while True:
            length, answer = HEADER.unpack(await reader.readexactly(HEADER.size))
            await reader.readexactly(length - HEADER.size)
            writer.write(b"a" * answer)
    except asyncio.IncompleteReadError:
        writer.close()


async def main(seconds: float) -> None:
    """Call until the time is over."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
    end = time.monotonic() + seconds
    calls = 0
    while time.monotonic() < end:
        sent, answer = 1000 + calls, 20000 + 3 * calls
        row = {"sent_bytes": sent, "recv_bytes": answer, "start_ns": time.monotonic_ns()}
        writer.write(HEADER.pack(sent, answer).ljust(sent, b"q"))
        await reader.readexactly(answer)
        print(json.dumps({**row, "end_ns": time.monotonic_ns()}), flush=True)
        calls += 1
        await asyncio.sleep(0.002)
    writer.close()
    await asyncio.sleep(0)
    server.close()
    print(json.dumps({"calls": calls}), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=0.5)
    asyncio.run(main(parser.parse_args().seconds))
