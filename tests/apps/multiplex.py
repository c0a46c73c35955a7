"""Ground truth: one connection shared by 16 tasks, answers shuffled, several in one write.

A receive belongs to every task whose future it set, and to no task that sent last. The server is
a child process, or a thread with --same-process. Answers are parsed by a protocol's
`data_received`, or by a background task over a StreamReader with `--reader task`.

The last line of stdout is JSON: `rows` (task, call, request, sent_bytes, answer_bytes, read: the
index into `reads`), `reads` (bytes and requests of each data_received or StreamReader.read: the
latter may hold several receives) and `writes` (requests answered by each write of the server).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import coded
import multiplex_server
import running
from multiplex_server import HEADER

ROWS: list[dict[str, Any]] = []
READS: list[dict[str, Any]] = []


class Answers(asyncio.Protocol):
    """Cut the byte stream into answers and set the futures that wait for them."""

    def __init__(self) -> None:
        """Start with no request in flight."""
        self.waiting: dict[int, asyncio.Future[int]] = {}
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        """Set the future of every answer that this data completes."""
        read: dict[str, Any] = {"bytes": len(data), "requests": []}
        READS.append(read)
        self.buffer += data
        while len(self.buffer) >= HEADER.size:
            request, length, _ = HEADER.unpack_from(self.buffer)
            if len(self.buffer) < length:
                break
            self.buffer = self.buffer[length:]
            read["requests"].append(request)
            self.waiting.pop(request).set_result(len(READS) - 1)

    async def read_all(self, reader: asyncio.StreamReader) -> None:
        """Do the same from a task: the background reader of many client libraries."""
        while data := await reader.read(65536):
            self.data_received(data)


async def ask(
    transport: asyncio.WriteTransport, answers: Answers, index: int, tasks: int, calls: int
) -> None:
    """Send requests whose id, length and answer's length no other request has."""
    loop = asyncio.get_running_loop()
    for call in range(calls):
        request = call * tasks + index
        sent, answer = 1000 + request, 2000 + 7 * request
        answers.waiting[request] = future = loop.create_future()
        transport.write(HEADER.pack(request, sent, answer).ljust(sent, b"q"))
        read = await future
        row = {"task": f"mux-{index:02d}", "call": call, "request": request, "read": read}
        ROWS.append({**row, "sent_bytes": sent, "answer_bytes": answer})


async def client(port: int, reader_kind: str, tasks: int, calls: int) -> None:
    """Open the one connection and let all tasks ask over it."""
    loop = asyncio.get_running_loop()
    answers = Answers()
    transport: asyncio.WriteTransport
    background: asyncio.Task[None] | None = None
    if reader_kind == "task":
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        transport = writer.transport
        background = asyncio.create_task(answers.read_all(reader), name="mux-reader")
    else:
        transport, _ = await loop.create_connection(lambda: answers, "127.0.0.1", port)
    await coded.together(
        {f"mux-{n:02d}": ask(transport, answers, n, tasks, calls) for n in range(tasks)}
    )
    if background:
        background.cancel()
    transport.close()


def main(options: argparse.Namespace) -> None:
    """Start the server, run the client, print the truth of both."""
    writes: list[list[int]] = []
    server_tgid = os.getpid()
    run = running.runner(options.loop)
    if options.same_process:
        with multiplex_server.listen() as listener:
            thread = threading.Thread(
                target=lambda: writes.extend(multiplex_server.serve(listener))
            )
            thread.start()
            port = listener.getsockname()[1]
            run(client(port, options.reader, options.tasks, options.calls))
            thread.join()
    else:
        command = [sys.executable, str(Path(multiplex_server.__file__))]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout
            server_tgid = child.pid
            port = int(child.stdout.readline())
            run(client(port, options.reader, options.tasks, options.calls))
            writes = json.loads(child.stdout.readline())
    truth = {"app": "multiplex", "tgid": os.getpid(), "server_tgid": server_tgid}
    print(json.dumps({**truth, "rows": ROWS, "reads": READS, "writes": writes}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--reader", choices=("protocol", "task"), default="protocol")
    parser.add_argument("--same-process", action="store_true")
    parser.add_argument("--tasks", type=int, default=16)
    parser.add_argument("--calls", type=int, default=23)
    running.add_option(parser)
    main(parser.parse_args())
