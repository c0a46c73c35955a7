"""Run `select 1` from 16 tasks over an asyncpg pool of 8, as a web service does.

Each query acquires a connection and gives it back, which asyncpg answers with a reset: two round
trips to the server for one query.

The last line of stdout is JSON: `queries` and the `seconds` they took, after a warm-up of `warm_up`
queries more over the same pool.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from typing import Any

import asyncpg

CONNECTIONS = 8
TASKS = 16


async def several(pool: Any, queries: int) -> None:
    """Run queries one after the other, each on whichever connection is free."""
    for _ in range(queries):
        async with pool.acquire() as connection:
            await connection.fetchval("select 1")


async def main(dsn: str, queries: int) -> None:
    """Share the queries out to all tasks, and print how long they took."""
    each = max(10, queries // TASKS)
    async with asyncpg.create_pool(dsn, min_size=CONNECTIONS, max_size=CONNECTIONS) as pool:
        await asyncio.gather(*(several(pool, each // 10) for _ in range(TASKS)))
        started = time.perf_counter()
        await asyncio.gather(*(several(pool, each) for _ in range(TASKS)))
        seconds = time.perf_counter() - started
    done = {"queries": each * TASKS, "warm_up": each // 10 * TASKS}
    print(json.dumps({**done, "seconds": seconds}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--dsn", required=True)
    parser.add_argument("--queries", type=int, default=12_000)
    options = parser.parse_args()
    asyncio.run(main(options.dsn, options.queries))
