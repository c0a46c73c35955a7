"""Ground truth: HTTP/2, many requests at once over one connection of httpx.

Whichever task reads or writes the connection does so for all of them: bytes are known as a sum.
See coded.py for the output; `total` is what all the requests' bodies had.
"""

from __future__ import annotations

import asyncio
from typing import Any

import coded
import h2.config
import h2.connection
import h2.events
import httpx
from truth import wait

SENT: list[int] = []


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer each request at its end, with as many bytes as it asks for."""
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    connection.initiate_connection()
    asked: dict[int, int] = {}
    while True:
        writer.write(connection.data_to_send())
        data = await reader.read(65536)
        if not data:
            break
        for event in connection.receive_data(data):
            react(connection, event, asked)
    writer.close()


def react(connection: h2.connection.H2Connection, event: Any, asked: dict[int, int]) -> None:
    """Take one of the connection's events."""
    if isinstance(event, h2.events.RequestReceived):
        asked[event.stream_id] = int(dict(event.headers)[b"x-answer"])
    elif isinstance(event, h2.events.DataReceived):
        connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
    elif isinstance(event, h2.events.StreamEnded):
        connection.send_headers(event.stream_id, [(":status", "200")])
        body = b"a" * asked.pop(event.stream_id)
        connection.send_data(event.stream_id, body, end_stream=True)


async def several(client: httpx.AsyncClient, url: str, calls: int) -> None:
    """Post one request after the other."""
    for _ in range(calls):
        sent, _recv = coded.lengths()
        SENT.append(sent)
        with wait("post"):
            await client.post(url, content=b"q" * sent, headers={"X-Answer": "100"})


async def main(tasks: int = 8, calls: int = 5) -> None:
    """Let all tasks share the connection."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    async with httpx.AsyncClient(http1=False, http2=True, trust_env=False) as client:
        await coded.together({f"h2-{n:02d}": several(client, url, calls) for n in range(tasks)})
    server.close()


if __name__ == "__main__":
    coded.run(__doc__, main)
    coded.tell("http2_streams", total=sum(SENT))
