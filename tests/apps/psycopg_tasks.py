"""Ground truth: psycopg's asynchronous connections: libpq itself reads, when add_reader says so.

Each query and its answer have lengths that no other has. See running.py for the output.
"""

from __future__ import annotations

import psycopg
import running
from truth import wait

QUERY = "SELECT repeat('x', %s) WHERE %s::text IS NOT NULL"


async def several(dsn: str, calls: int) -> None:
    """Run queries one after the other on a connection of its own."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        for _ in range(calls):
            sent, recv = running.lengths()
            with wait("query", sent=sent, recv=recv):
                cursor = await connection.execute(QUERY, (recv, "q" * sent))
            row = await cursor.fetchone()
            assert row
            assert len(row[0]) == recv


async def main(dsn: str, tasks: int, calls: int) -> None:
    """Let each task have a connection."""
    await running.together({f"psycopg-{n:02d}": several(dsn, calls) for n in range(tasks)})


if __name__ == "__main__":
    parser = running.parser(__doc__)
    parser.add_argument("--dsn", required=True)
    options = parser.parse_args()
    running.run(main(options.dsn, tasks=8, calls=11), options.loop)
    running.tell("psycopg_tasks")
