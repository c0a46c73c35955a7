"""Awaits by source line for the page: percentiles, shares, distribution, examples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tracer.correlate.words import STAGES

if TYPE_CHECKING:
    from tracer.correlate.trace import Row, Trace

BINS_A_DECADE = 5
_KEY = '"where", kind'


def line_rows(trace: Trace, most: int) -> list[Row]:
    """Return the lines whose awaits took most, at most so many.

    Returns:
        where, kind, count, p50, p95, p99, max and sum (ns); stages {name: share of the sum}; tasks,
        a few names; bins {k: how many awaits took 10 ** (k / BINS_A_DECADE) ns or more, below the
        next}; examples {median, p99, slowest: await_id}.

    """
    shares = ", ".join(f"sum(coalesce({n}_ns, 0))::DOUBLE AS {n}" for n in STAGES)
    rows = trace.rows(
        f"""
        SELECT {_KEY}, count(*) AS count, quantile_disc(total_ns, 0.5) AS p50,
               quantile_disc(total_ns, 0.95) AS p95, quantile_disc(total_ns, 0.99) AS p99,
               max(total_ns) AS max, sum(total_ns)::BIGINT AS sum, {shares},
               arg_max(await_id, total_ns) AS slowest,
               list_sort(list(DISTINCT task_name))[1:5] AS tasks
          FROM "await" WHERE task_id IS NOT NULL GROUP BY {_KEY}
         ORDER BY sum DESC, "where", kind LIMIT ?""",
        most,
    )
    bins = _bins(trace)
    return [_line(trace, row, bins) for row in rows]


def _line(trace: Trace, row: Row, bins: dict[tuple[str, str], Row]) -> Row:
    whole = row["sum"] or 1
    near: dict[str, Any] = {"slowest": row.pop("slowest")}
    for name in ("p50", "p99"):
        (found,) = trace.rows(
            'SELECT min(await_id) AS id FROM "await" WHERE task_id IS NOT NULL AND "where" = ?'
            " AND kind = ? AND total_ns = ?",
            row["where"],
            row["kind"],
            row[name],
        )
        near["median" if name == "p50" else name] = found["id"]
    return {
        **{key: value for key, value in row.items() if key not in STAGES},
        "stages": {name: row[name] / whole for name in STAGES},
        "bins": bins[row["where"], row["kind"]],
        "examples": {key: near[key] for key in ("median", "p99", "slowest")},
    }


def _bins(trace: Trace) -> dict[tuple[str, str], Row]:
    rows = trace.rows(
        f"SELECT {_KEY}, floor({BINS_A_DECADE} * log10(greatest(total_ns, 1)))::INT AS bin,"
        ' count(*) AS count FROM "await" WHERE task_id IS NOT NULL GROUP BY ALL ORDER BY ALL'
    )
    found: dict[tuple[str, str], Row] = {}
    for row in rows:
        found.setdefault((row["where"], row["kind"]), {})[str(row["bin"])] = row["count"]
    return found
