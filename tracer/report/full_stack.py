"""What the full-stack demo shows beside one table: a typical fetch, and how many were whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tracer.errors import TracerFailed
from tracer.report.awaits import await_rows

if TYPE_CHECKING:
    from collections.abc import Collection

    from tracer.correlate.trace import Row, Trace

_FETCHES = """
  SELECT a.await_id, a.total_ns, a.legs, a.complete, max_by(l.observed_steps, l.trip) AS observed
    FROM "await" a JOIN leg l USING (await_id)
   WHERE list_contains($1, parse_filename(a."where")) AND a.sent_bytes > 0
   GROUP BY ALL"""


def coverage(trace: Trace, lines: Collection[str]) -> dict[str, Any]:
    """Return how many awaits of the given `file:line` sent a query, and how many were whole.

    Whole: 12 or more of the 13 steps were observed.
    """
    row = trace.rows(
        f"SELECT count(*) AS fetches, count(*) FILTER (observed >= 12) AS whole FROM ({_FETCHES})",
        list(lines),
    )[0]
    return {**row, "share": row["whole"] / row["fetches"] if row["fetches"] else 0.0}


def typical_fetch(trace: Trace, lines: Collection[str]) -> Row:
    """Return the fetch of median length among those with one trip and the most steps seen."""
    best = trace.rows(
        f"WITH asked AS ({_FETCHES})"
        " SELECT await_id FROM asked WHERE legs = 1 AND complete"
        " AND observed = (SELECT max(observed) FROM asked WHERE legs = 1 AND complete)"
        " ORDER BY total_ns, await_id",
        list(lines),
    )
    if not best:
        raise TracerFailed(
            "no fetch was traced whole",
            "see `awaitscope info`: did the agent start, were records lost?",
        )
    return await_rows(trace, await_id=best[len(best) // 2]["await_id"])[0]
