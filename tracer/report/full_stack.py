"""What the full-stack demo shows beside one table: a typical fetch, and how many were whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tracer.errors import TracerFailed
from tracer.report.awaits import await_rows

if TYPE_CHECKING:
    from tracer.correlate.trace import Row, Trace

# the demo's four functions with `row = await conn.fetch(query)`
_FETCHES = (
    "FROM \"await\" a WHERE kind = 'socket' AND round_trips > 0 AND sent_bytes > 0"
    " AND task_name LIKE 'shop-%'"
)


def coverage(trace: Trace) -> dict[str, Any]:
    """Return how many fetches there were and for how many 12 steps or more were observed."""
    row = trace.rows(
        "SELECT count(*) AS fetches, count(*) FILTER (observed >= 12) AS whole FROM"
        " (SELECT await_id, (SELECT arg_max(observed_steps, trip) FROM leg"
        f" WHERE leg.await_id = a.await_id) AS observed {_FETCHES})"
    )[0]
    share = row["whole"] / row["fetches"] if row["fetches"] else 0.0
    return {**row, "share": share}


def typical_fetch(trace: Trace) -> Row:
    """Return the fetch of median length among those with a single trip and most steps seen."""
    best = trace.rows(
        "SELECT await_id FROM (SELECT a.await_id, total_ns,"
        " (SELECT max(observed_steps) FROM leg WHERE leg.await_id = a.await_id) AS observed,"
        f" max(observed) OVER () AS most {_FETCHES} AND legs = 1 AND complete)"
        " WHERE observed = most ORDER BY total_ns"
    )
    if not best:
        raise TracerFailed(
            "no fetch was traced whole", "see `awaitscope info`: did the agent start, was data lost?"
        )
    return await_rows(trace, await_id=best[len(best) // 2]["await_id"])[0]
