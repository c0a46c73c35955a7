"""Ground truth: psycopg's asynchronous connections: libpq itself reads, when add_reader says so.

Each query and its answer have lengths that no other has. See coded.py for the output.
"""

from __future__ import annotations

import coded
import psycopg
from truth import wait

QUERY = "SELECT repeat('x', %s) WHERE %s::text IS NOT NULL"


async def several(dsn: str, calls: int) -> None:
    """Run queries one after the other on a connection of its own."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        for _ in range(calls):
            sent, recv = coded.lengths()
            with wait("query", sent=sent, recv=recv):
                cursor = await connection.execute(QUERY, (recv, "q" * sent))
            row = await cursor.fetchone()
            assert row
            assert len(row[0]) == recv


async def main(dsn: str, tasks: int = 8, calls: int = 11) -> None:
    """Let each task have a connection."""
    await coded.together({f"psycopg-{n:02d}": several(dsn, calls) for n in range(tasks)})


if __name__ == "__main__":
    coded.run(__doc__, main, "dsn")
    coded.tell("psycopg_tasks")
