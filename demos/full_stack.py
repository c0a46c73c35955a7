"""Run a small shop on asyncpg: 20 tasks, 5 connections, a few hundred real queries.

The document's section "The Full Stack: From await to Hardware" follows one line of Python,
`row = await conn.fetch(query)`, down through five layers and back in 13 steps: your code (1), the
driver (2, 3), the kernel (4), the network (5), PostgreSQL (6), the network (7), the kernel (8, 9),
asyncio (10, 11), the driver (12), your code (13). This program runs that line in four ways:

- `look_up`: a prepared statement by key, one round trip, well below a millisecond;
- `settle`: the server needs 20 ms, so step 6 is nearly all of the await;
- `list_all`: an answer of some 400 kB, many packets and several reads;
- `browse`: a text the connection has not seen, so two round trips: prepare, then execute.

Under trace you should see for each of them which step took the time, that the loop's thread ran
other tasks meanwhile, and, where an answer was there before its task ran again, what kept it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator

import asyncpg

Query = Callable[[asyncpg.Connection, int], Awaitable[None]]
CONNECTIONS = 5
ITEMS = 2000


async def look_up(conn: asyncpg.Connection, key: int) -> None:
    """Fetch one item by key; after the first time on a connection the statement is prepared."""
    query = "SELECT id, name, price FROM item WHERE id = $1"
    row = await conn.fetch(query, key)
    assert row[0]["id"] == key


async def settle(conn: asyncpg.Connection, key: int) -> None:
    """Fetch something that takes the server 20 ms."""
    query = "SELECT $1::int AS id, pg_sleep(0.02)"
    row = await conn.fetch(query, key)
    assert row[0]["id"] == key


async def list_all(conn: asyncpg.Connection, _key: int) -> None:
    """Fetch every item: some 400 kB."""
    query = "SELECT id, name, price, description FROM item"
    row = await conn.fetch(query)
    assert len(row) == ITEMS


async def browse(conn: asyncpg.Connection, key: int) -> None:
    """Fetch with the key in the text, as no prepared statement can be reused."""
    query = f"SELECT id, name, price FROM item WHERE id = {key}"
    row = await conn.fetch(query)
    assert row[0]["id"] == key


# Of ten queries seven are fast, one is slow, one large and one seen for the first time.
MIX: tuple[Query, ...] = (*[look_up] * 4, browse, settle, list_all, *[look_up] * 3)


async def shop(pool: asyncpg.Pool, orders: Iterator[int], done: Counter[str]) -> None:
    """Take orders until there are none left, each with a connection of the pool."""
    for order in orders:
        query = MIX[order % len(MIX)]
        async with pool.acquire() as conn:
            await query(conn, order % ITEMS)
        done[query.__name__] += 1


async def main(dsn: str, queries: int, tasks: int) -> None:
    """Fill a table of our own, let the tasks empty the queue of orders, drop the table."""
    schema = f"shop_{os.getpid()}"
    owner = await asyncpg.connect(dsn)
    await owner.execute(f"CREATE SCHEMA {schema}")
    try:
        await owner.execute(
            f"CREATE TABLE {schema}.item AS"
            " SELECT id, 'item ' || id AS name, id % 97 AS price, repeat('good', 50) AS description"
            f" FROM generate_series(0, {ITEMS - 1}) AS id;"
            f"CREATE UNIQUE INDEX ON {schema}.item (id); ANALYZE {schema}.item"
        )
        settings = {"search_path": schema}
        async with asyncpg.create_pool(
            dsn, min_size=CONNECTIONS, max_size=CONNECTIONS, server_settings=settings
        ) as pool:
            orders, done = iter(range(queries)), Counter[str]()
            start = time.perf_counter()
            async with asyncio.TaskGroup() as group:
                for number in range(tasks):
                    group.create_task(shop(pool, orders, done), name=f"shop-{number:02}")
            elapsed_s = time.perf_counter() - start
    finally:
        await owner.execute(f"DROP SCHEMA {schema} CASCADE")
        await owner.close()
    kinds = ", ".join(f"{count} {name}" for name, count in done.most_common())
    print(f"{queries} queries ({kinds}) by {tasks} tasks over {CONNECTIONS} connections", end=" ")
    print(f"in {elapsed_s:.2f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--dsn", required=True, help="the PostgreSQL to ask, postgresql://…")
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--tasks", type=int, default=20)
    options = parser.parse_args()
    asyncio.run(main(options.dsn, options.queries, options.tasks))
