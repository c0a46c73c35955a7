"""Tables and columns of a trace with their meaning."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracer.correlate.catalogue import DOCS
from tracer.correlate.trace import ALL_TABLES
from tracer.events.tables import AGENT_TABLES, KERNEL_TABLES, stored_columns

if TYPE_CHECKING:
    from tracer.correlate.trace import Row, Trace


def schema_rows(trace: Trace | None) -> list[Row]:
    """Return a row per column: table, column, type, doc.

    Without a trace the columns of the correlated tables are those that have a description.
    """
    event = {name: stored_columns(name) for name in KERNEL_TABLES + AGENT_TABLES}
    rows = []
    for table in ALL_TABLES:
        docs = {c.name: c.doc for c in event[table]} if table in event else DOCS.get(table, {})
        if trace is not None:
            described = trace.rows(f'DESCRIBE "{table}"')
            types = {c["column_name"]: c["column_type"] for c in described}
        elif table in event:
            types = {c.name: c.type for c in event[table]}
        else:
            types = dict.fromkeys(docs, "")
        rows += [
            {"table": table, "column": name, "type": kind, "doc": docs.get(name, "")}
            for name, kind in types.items()
        ]
    return rows
