"""Ground truth: asyncio streams, client and server on one loop, lengths that name the task.

Request and answer lengths are unique per call, so a row of a trace can be matched by them alone.
A client's await sends one whole request and receives one whole answer. A server's await sends the
answer before it (the same step wrote it) and receives the next request; if that is here already
(uvloop reads before the server's task begins), it is no await.

The last line of stdout is JSON: `rows` (client), `server_rows` and `early_rows` (the requests that
nobody had to await), each with task, call, sent_bytes, recv_bytes, outcome ("ok", "cancelled",
"eof"); lengths in bytes of payload.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import struct
from itertools import count
from typing import TYPE_CHECKING, Any

import coded

if TYPE_CHECKING:
    from typing import Self

import running

HEADER = struct.Struct("!II")  # length of this request, length of the wanted answer (0: none)
SERIAL = count()
ROWS: list[dict[str, Any]] = []
SERVER_ROWS: list[dict[str, Any]] = []
EARLY_ROWS: list[dict[str, Any]] = []
ALL_ROWS = {"rows": ROWS, "server_rows": SERVER_ROWS, "early_rows": EARLY_ROWS}


def note(rows: list[dict[str, Any]], call: int, sent: int, recv: int, outcome: str) -> None:
    """Append one row under the name of the running task."""
    task = asyncio.current_task()
    name = task.get_name() if task else ""
    row = {"task": name, "call": call, "sent_bytes": sent, "recv_bytes": recv, "outcome": outcome}
    rows.append(row)


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer each request with as many bytes as it asks for, until the client closes."""
    sent = 0
    for call in count():
        waits = len(reader._buffer) < HEADER.size  # type: ignore[attr-defined]
        try:
            head = await reader.readexactly(HEADER.size)
        except asyncio.IncompleteReadError:
            note(SERVER_ROWS, call, sent, 0, "eof")
            break
        length, answer = HEADER.unpack(head)
        await reader.readexactly(length - HEADER.size)  # here already: does not suspend
        note(SERVER_ROWS if waits else EARLY_ROWS, call, sent if waits else 0, length, "ok")
        sent = 0 if waits else sent
        writer.write(b"a" * answer)
        sent += answer
    writer.close()


class Client:
    """One connection; its calls have lengths that no other call of this run has."""

    def __init__(self, port: int) -> None:
        """Remember where the server is."""
        self.port = port

    async def __aenter__(self) -> Self:
        """Connect."""
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        return self

    async def __aexit__(self, *_error: object) -> None:
        """Close without waiting: one await less to explain."""
        self.writer.close()

    async def call(self, number: int, *, answered: bool = True) -> None:
        """Send one request and await its answer; both lengths come from one serial number."""
        serial = next(SERIAL)
        sent = 1000 + serial
        answer = 5000 + 7 * serial if answered else 0
        try:
            self.writer.write(HEADER.pack(sent, answer).ljust(sent, b"q"))
            await self.reader.readexactly(answer or 1)
        except asyncio.CancelledError:
            note(ROWS, number, sent, 0, "cancelled")
            raise
        note(ROWS, number, sent, answer, "ok")


async def several(port: int, calls: int) -> None:
    """Make calls one after the other over one connection."""
    async with Client(port) as client:
        for number in range(calls):
            await client.call(number)


async def hopeless(port: int) -> None:
    """Await an answer that never comes."""
    async with Client(port) as client:
        await client.call(0, answered=False)


async def main(tasks: int, calls: int) -> None:
    """Run every way of starting and ending tasks that asyncio has."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    await coded.together({f"stream-{n:02d}": several(port, calls) for n in range(tasks)})
    for _ in range(5):  # short lives, one name: ids must not be mixed up
        churn = [asyncio.create_task(several(port, 1), name="churn") for _ in range(7)]
        await asyncio.wait(churn)
    await asyncio.gather(*(several(port, 2) for _ in range(5)))
    for _ in range(3):
        await asyncio.wait_for(several(port, 2), timeout=5)
    for _ in range(3):
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(hopeless(port), timeout=0.02)
    doomed = [asyncio.create_task(hopeless(port), name=f"doomed-{n}") for n in range(3)]
    await asyncio.sleep(0.02)
    for task in doomed:
        task.cancel()
    await asyncio.wait(doomed)
    await asyncio.sleep(0.02)  # the server's tasks see the last connections end
    server.close()
    print(json.dumps({"app": "streams", "tgid": os.getpid(), **ALL_ROWS}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--tasks", type=int, default=40)
    parser.add_argument("--calls", type=int, default=23)
    running.add_option(parser)
    options = parser.parse_args()
    running.runner(options.loop)(main(options.tasks, options.calls))
