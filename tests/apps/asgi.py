"""Ground truth: an ASGI application without a framework, for uvicorn and gunicorn.

Each request makes one call over a connection of its own to a server on the worker's loop, with
lengths that no other call of this worker has, and answers with the worker's pid. When the worker
ends it prints one line of JSON: `rows` and `server_rows` as in streams.py, each with its tgid,
`tgids`, itself, and `requests`, how many it answered.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))  # the server imports this file by its name
import loops
import streams

STATE: dict[str, Any] = {"requests": 0}


async def lifespan(receive: Any, send: Any) -> None:
    """Serve the calls while the worker lives; say at its end what there was."""
    await receive()
    server = await asyncio.start_server(streams.serve, "127.0.0.1", 0)
    STATE["port"] = server.sockets[0].getsockname()[1]
    await send({"type": "lifespan.startup.complete"})
    await receive()
    server.close()
    await asyncio.sleep(0.02)  # the server's tasks see the last connections end
    truth = {**loops.told(), "requests": STATE["requests"]}
    os.write(1, (json.dumps(truth) + "\n").encode())
    await send({"type": "lifespan.shutdown.complete"})


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer a request after one call of its own."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    async with streams.Client(STATE["port"]) as client:
        await client.call(0)
    STATE["requests"] += 1
    body = str(os.getpid()).encode()
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": body})
