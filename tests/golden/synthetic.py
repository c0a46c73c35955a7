"""Traces that nobody recorded: the golden one with other rows in its event tables."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import duckdb

from tracer.events.tables import AGENT_TABLES
from tracer.store.layout import MANIFEST, PARQUET

RECORDED = Path(__file__).resolve().parents[1] / "data" / "trace"
LOST = 17
MAIN, SLEEPER = 1, 7  # tasks of tests/apps/golden.py: main, producer
HOSTILE = (
    "</script><script>alert(1)</script>",
    '"]; end; A-->B["owned',
    "```\n## a heading of theirs\n```mermaid",
    "%%{init: {}}%% #quot; {{ 7 * 7 }}",
    'a"},{"name":"forged","ph":"X',
    "\x1b[31mred\u202e\u2028\r\n",
    "Näme, 名前, 🦊",
)


def made_of(target: Path, **changes: str) -> Path:
    """Copy the recorded trace, each table named in `changes` as that query gives it.

    In a query the table is `source`, in order of time; its `id`s are numbered anew.
    """
    shutil.copytree(RECORDED, target)
    connection = duckdb.connect()
    for table, query in changes.items():
        old, new = RECORDED / f"{table}.parquet", target / f"{table}.parquet"
        connection.execute(f"CREATE OR REPLACE VIEW source AS FROM '{old}'")
        columns = [name for name, *_ in connection.execute("DESCRIBE source").fetchall()]
        numbered = "id" in columns and "ts_ns" in columns  # the id of a string is a name
        chosen = "*"
        if numbered:
            chosen = "* REPLACE (row_number() OVER (ORDER BY ts_ns, id) - 1 AS id)"
        order = "ORDER BY id" if numbered else ""
        connection.execute(f"COPY (SELECT {chosen} FROM ({query}) {order}) TO '{new}' {PARQUET}")
    return target


def without(target: Path, *tables: str) -> Path:
    """Copy the recorded trace, some tables without rows."""
    return made_of(target, **dict.fromkeys(tables, "FROM source WHERE false"))


def empty(target: Path) -> Path:
    """Make a trace in which nothing was recorded."""
    without(target, *(path.stem for path in RECORDED.glob("*.parquet")))
    _edit(target, agents=[], processes=[])
    return target


def no_awaits(target: Path) -> Path:
    """Make the trace of a program without asyncio: what the kernel saw."""
    without(target, *AGENT_TABLES, "string", "agent_thread")
    _edit(target, agents=[])
    return target


def only_losses(target: Path) -> Path:
    """Make a trace whose rings were too small for a single record."""
    tables = {path.stem: "FROM source WHERE false" for path in RECORDED.glob("*.parquet")}
    tables["loss"] = (
        f"SELECT ts_ns, event, 0 AS cpu, NULL::BIGINT AS agent, {LOST} AS seen, {LOST} AS lost"
        " FROM source WHERE event = 'syscall' LIMIT 1"
    )
    tables["gap"] = (
        "SELECT 0 AS id, 1000000000 AS ts_ns, 0 AS tid, 0 AS cpu, 0 AS flags,"
        f" 1100000000 AS end_ns, {LOST} AS lost_count, 2 AS kinds"
    )
    made_of(target, **tables)
    events = {"syscall": {"written": 0, "lost": LOST}}
    known = json.loads((target / MANIFEST).read_text())["events"]
    nothing = {name: {"written": 0, "lost": 0} for name in known}
    _edit(target, agents=[], processes=[], events=nothing | events)
    return target


def one_task(target: Path) -> Path:
    """Make a trace of the main task alone."""
    one = f"FROM source WHERE task = {MAIN}"
    return made_of(target, task=one, step=one)


def hostile(target: Path) -> Path:
    """Make a trace in which every name of the program tries to break out of its format."""
    names = ", ".join("'" + name.replace("'", "''") + "'" for name in HOSTILE)
    task, string = (f"([{names}])[1 + {column} % {len(HOSTILE)}]" for column in ("task", "id"))
    return made_of(
        target,
        task=f"SELECT * REPLACE ({task} AS name) FROM source",
        string=f"SELECT * REPLACE ({string} || text AS text) FROM source",
    )


def many_tasks(target: Path, count: int) -> Path:
    """Make a trace with so many further tasks, which all sleep once: each twice for a moment."""
    first, apart = json.loads((RECORDED / MANIFEST).read_text())["end_ns"], 2_000
    copies = f"range({count}) AS copy(k)"
    task = f"""
        FROM source UNION ALL
        SELECT source.* REPLACE ({first} - {count} + k AS ts_ns, 1000 + k AS task, 1 AS parent,
                                 0 AS run, 'many-' || k AS name)
          FROM source, {copies} WHERE task = {SLEEPER}"""
    step = f"""
        WITH mine AS (SELECT *, row_number() OVER (ORDER BY ts_ns) - 1 AS place
                        FROM source WHERE task = {SLEEPER} AND row IN (0, 1)),
        moved AS (SELECT mine.*, {first} + (place * {count} + k) * {apart} AS since, k
                    FROM mine, {copies})
        FROM source UNION ALL
        SELECT * EXCLUDE (place, since, k) REPLACE (
                 since AS ts_ns, since + {apart} // 2 AS end_ns, since - 100 AS wake_ns,
                 1000000 + place * {count} + k AS run, 0 AS waker_run, 1000 + k AS task)
          FROM moved"""
    made_of(target, task=task, step=step)
    _edit(target, end_ns=first + 2 * count * apart + 1_000_000)
    return target


def _edit(target: Path, **changes: object) -> None:
    manifest = json.loads((target / MANIFEST).read_text())
    (target / MANIFEST).write_text(json.dumps(manifest | changes))
