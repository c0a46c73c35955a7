"""FastAPI on uvicorn and an asyncpg pool, as many services are; GET /rows/7 asks PostgreSQL twice.

Its address is in DSN. If TRUTH names a folder, each worker leaves a JSON file there
when it ends: `rows` with the request's serial, the worker, the task, and what each of its two
queries really moved over the socket (see pool.py). Lengths of answers belong to one query alone.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
from fastapi import FastAPI

sys.path.append(str(Path(__file__).parent))  # uvicorn imports this file by its name
from pool import counters

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

QUERY = "SELECT repeat('x', $1::int)"
ROWS: list[dict[str, Any]] = []
STATE: dict[str, Any] = {}


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    """Hold four connections while the worker lives; say at its end what there was."""
    async with asyncpg.create_pool(os.environ["DSN"], min_size=4, max_size=4) as STATE["pool"]:
        yield
    if "TRUTH" in os.environ:
        tell()


def tell() -> None:
    """Leave what this worker noted."""
    Path(os.environ["TRUTH"], f"{os.getpid()}.json").write_text(json.dumps(ROWS))


app = FastAPI(lifespan=lifespan)


@app.get("/rows/{serial}")
async def rows(serial: int) -> dict[str, int]:
    """Answer with the lengths of two answers of PostgreSQL's, and who served."""
    async with STATE["pool"].acquire() as conn:
        lengths = [await ask(conn, serial, 64 + 2 * serial + n) for n in (0, 1)]
    return {"serial": serial, "bytes": sum(lengths), "worker": os.getpid()}


async def ask(conn: Any, serial: int, length: int) -> int:
    """Ask for a text of this length."""
    if "TRUTH" not in os.environ:
        return len(await conn.fetchval(QUERY, length))
    sock = conn._con._transport.get_extra_info("socket")
    sent, received = counters(sock)
    text = await conn.fetchval(QUERY, length)  # noted
    now = counters(sock)
    moved = {"sent_bytes": now[0] - sent, "recv_bytes": now[1] - received}
    task = asyncio.current_task()
    name = task.get_name() if task else ""
    ROWS.append({"serial": serial, "tgid": os.getpid(), "task": name, "outcome": "ok", **moved})
    return len(text)
