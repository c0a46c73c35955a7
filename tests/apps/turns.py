"""Ground truth: one connection, one query after the other; each answer is one packet.

The last line of stdout is JSON: `answers`, and `interrupts`, how often each interrupt was handled
between the first query and the last answer (/proc/interrupts), by its name.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from pathlib import Path

import asyncpg


def handled() -> dict[str, int]:
    """Return how often each interrupt was handled so far, on all CPUs."""
    head, *lines = Path("/proc/interrupts").read_text().splitlines()
    cpus = len(head.split())
    words = [line.split() for line in lines]
    return {w[-1]: sum(map(int, w[1 : cpus + 1])) for w in words if w[0][:-1].isdigit()}


async def main(dsn: str, turns: int) -> None:
    """Ask in turn; the first query prepares the statement and is not counted."""
    conn = await asyncpg.connect(dsn)
    text = "SELECT $1::int * 2 AS twice"
    await conn.fetchval(text, 0)
    before = handled()
    for turn in range(turns):
        row = await conn.fetch(text, turn)
        assert row[0]["twice"] == 2 * turn
    after = handled()
    await conn.close()
    moved = {name: after[name] - before.get(name, 0) for name in after}
    print(json.dumps({"app": "turns", "answers": turns, "interrupts": moved}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--dsn", required=True)
    parser.add_argument("--turns", type=int, default=97)
    options = parser.parse_args()
    asyncio.run(main(options.dsn, options.turns))
