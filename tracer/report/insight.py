"""The document's key insight as a measurement: whose CPU time there was between steps 4 and 9."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tracer.correlate.trace import Row, Trace


def insight(
    trace: Trace, row: Row, bounds: tuple[int | None, int | None], peer_path: tuple[int, int]
) -> dict[str, Any]:
    """Return how long the process's threads were on a CPU between steps 4 and 9, and for whom.

    Args:
        trace: the trace.
        row: the await.
        bounds: end of step 4 (hand-over to the device) and start of step 9, ns.
        peer_path: when the sender's own call ran the peer's receive path (loopback, veth): it
            is the peer's work and not counted; (0, 0) if it did not.

    Returns:
        on_cpu_4_to_9_ns: sum over the process's threads; None where a bound is missing.
        peer_path_ns: what was left out as the peer's work.
        window_ns: the time between the two steps.
        loop_did_meanwhile: task or callback, its runs in the window and their time (wall), ns.

    """
    start, end = bounds
    if start is None or end is None or end < start:
        return {
            "on_cpu_4_to_9_ns": None,
            "peer_path_ns": None,
            "window_ns": None,
            "loop_did_meanwhile": [],
        }
    peer_ns = max(0, min(end, peer_path[1]) - max(start, peer_path[0]))
    threads = trace.rows(
        "SELECT tid, min(ts_ns) AS born,"
        " max(CASE WHEN what = 3 THEN ts_ns ELSE 9223372036854775807 END) AS died"
        " FROM thread WHERE tgid = ? GROUP BY tid",
        row["tgid"],
    )
    on_cpu = 0
    for thread in threads:
        lo, hi = max(start, thread["born"]), min(end, thread["died"])
        if hi <= lo:
            continue
        off = off_cpu_ns(trace, thread["tid"], lo, hi)
        on_cpu += max(0, hi - lo - off)
    return {
        "on_cpu_4_to_9_ns": max(0, on_cpu - peer_ns),
        "peer_path_ns": peer_ns,
        "window_ns": max(0, end - start),
        "loop_did_meanwhile": _meanwhile(trace, row["tid"], start, end),
    }


def off_cpu_ns(trace: Trace, tid: int, start: int, end: int) -> int:
    """Return how long a thread was off the CPU, or its CPU taken away, between two moments, ns."""
    rows = trace.rows(
        "SELECT coalesce(sum(least(ts_ns + dur_ns, $3) - greatest(ts_ns, $2)), 0)::BIGINT AS ns"
        " FROM (SELECT tid, ts_ns, dur_ns FROM off_cpu"
        " UNION ALL SELECT tid, ts_ns, dur_ns FROM stolen)"
        " WHERE tid = $1 AND ts_ns < $3 AND ts_ns + dur_ns > $2",
        tid,
        start,
        end,
    )
    return int(rows[0]["ns"])


def _meanwhile(trace: Trace, tid: int, start: int, end: int) -> list[Row]:
    return trace.rows(
        """
        WITH run AS (
          SELECT s.agent, s.ts_ns, s.end_ns, 'task' AS type, s.task, 0 AS name_str
            FROM step s WHERE s.tid = $1 AND s.ts_ns < $3 AND s.end_ns > $2
          UNION ALL
          SELECT c.agent, c.ts_ns, c.end_ns, 'callback', 0, c.name_str
            FROM callback c WHERE c.tid = $1 AND c.ts_ns < $3 AND c.end_ns > $2)
        SELECT run.type, coalesce(t.name, g.text, '') AS name, count(*) AS runs,
               sum(least(run.end_ns, $3) - greatest(run.ts_ns, $2))::BIGINT AS dur_ns
          FROM run LEFT JOIN task t ON t.agent = run.agent AND t.task = run.task
                   LEFT JOIN string g ON g.agent = run.agent AND g.id = run.name_str
         GROUP BY 1, 2 ORDER BY dur_ns DESC, name LIMIT 20""",
        tid,
        start,
        end,
    )
