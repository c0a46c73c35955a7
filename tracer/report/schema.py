"""Tables and columns of a trace with their meaning."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracer.correlate.catalogue import DOCS
from tracer.correlate.trace import ALL_TABLES
from tracer.events.tables import AGENT_TABLES, KERNEL_TABLES, stored_columns

if TYPE_CHECKING:
    from tracer.correlate.trace import Row, Trace


def schema_rows(trace: Trace) -> list[Row]:
    """Return a row per column: table, column, type, doc."""
    docs = {
        name: {c.name: c.doc for c in stored_columns(name)} for name in KERNEL_TABLES + AGENT_TABLES
    }
    rows = []
    for table in ALL_TABLES:
        known = docs.get(table) or DOCS.get(table, {})
        for column in trace.rows(f'DESCRIBE "{table}"'):
            name = column["column_name"]
            rows.append(
                {
                    "table": table,
                    "column": name,
                    "type": column["column_type"],
                    "doc": known.get(name, ""),
                }
            )
    return rows
