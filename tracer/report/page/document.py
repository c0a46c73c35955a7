"""Everything that the page shows, as one JSON document."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from tracer.correlate.words import LAG, LONG_HOLD_NS, STAGES
from tracer.errors import Usage
from tracer.report.awaits import await_rows
from tracer.report.blocking import blocking_rows, culprits
from tracer.report.info import info_document
from tracer.report.lanes import stage_spans, timed_lanes
from tracer.report.page.findings import findings
from tracer.report.page.lines import line_rows
from tracer.report.page.spans import timeline_document
from tracer.report.steps import choose, explain, leg_of

if TYPE_CHECKING:
    from tracer.correlate.trace import Row, Trace

MOST_LINES = 200
MOST_HOLDS = 200
_EXPLAINED = 60  # awaits with their steps on the page
_EXPLAIN_S = 20.0
_SLICES = 60
_SHARE = 0.15  # a share that the verdict names
_WAITED_FOR = {
    "socket": "waiting for the other side of a socket",
    "timer": "sleeping (timers)",
    "thread": "waiting for threads or processes of executors",
    "other": "waiting for other tasks (queues, locks, events, futures)",
}


def page_document(trace: Trace) -> dict[str, Any]:
    """Return the page's data; times in ns, CLOCK_MONOTONIC where they are moments."""
    lines = line_rows(trace, MOST_LINES)
    holds = blocking_rows(trace, LONG_HOLD_NS)
    found = findings(trace, holds)
    totals = _totals(trace)
    info = info_document(trace)
    explained = _explained(trace, lines, found)
    return {
        "version": 1,
        "start_ns": trace.manifest["start_ns"],
        "command": info["command"],
        "duration_ns": info["duration_ns"],
        "events": sum(kind["written"] for kind in info["events"].values()),
        "lost": info["lost_total"],
        "state": info["state"],
        "kernel": info["host"]["kernel"],
        "level": info["level"],
        "processes": len(info["targets"]),
        "totals": totals,
        "verdict": verdict(totals, holds),
        "findings": found,
        "lines": lines,
        "holds": holds[:MOST_HOLDS],
        "held_over_ns": LONG_HOLD_NS,
        "hold_count": len(holds),
        "culprits": culprits(holds),
        "lag": _lag_over_time(trace),
        "awaits": explained,
        "first_await": next(iter(explained), None),
        "timeline": timeline_document(trace),
    }


def _totals(trace: Trace) -> dict[str, Any]:
    sums = ", ".join(
        f"coalesce(sum({name}), 0)::BIGINT AS {name}"
        for name in (*(f"{stage}_ns" for stage in STAGES), *LAG)
    )
    (row,) = trace.rows(
        f"SELECT count(*) AS awaits, coalesce(sum(total_ns), 0)::BIGINT AS total_ns, {sums},"
        " count(*) FILTER (NOT complete) AS incomplete"
        ' FROM "await" WHERE task_id IS NOT NULL'
    )
    (tasks,) = trace.rows("SELECT count(*) AS n FROM task_total")
    known = ", ".join(f"'{kind}'" for kind in _WAITED_FOR)
    waited = trace.rows(
        f"SELECT CASE WHEN kind IN ({known}) THEN kind ELSE 'other' END AS kind,"
        ' sum(coalesce(remote_ns, 0))::BIGINT AS ns FROM "await" WHERE task_id IS NOT NULL'
        " GROUP BY 1 ORDER BY ns DESC"
    )
    return {
        "waited_for": {one["kind"]: one["ns"] for one in waited},
        "awaits": row["awaits"],
        "incomplete": row["incomplete"],
        "tasks": tasks["n"],
        "total_ns": row["total_ns"],
        "stages": {name: row[f"{name}_ns"] for name in STAGES},
        "lag": {name.removesuffix("_ns"): row[name] for name in LAG},
    }


def verdict(totals: dict[str, Any], holds: list[Row]) -> str:
    """Return in a sentence or two where the await time went."""
    whole = totals["total_ns"]
    if not whole:
        return "No await took any time in this trace."
    stages = totals["stages"]
    parts = {
        **{_WAITED_FOR[kind]: ns for kind, ns in totals["waited_for"].items()},
        "lag: the answer was there and the task not running": sum(
            stages[name] for name in ("wake", "queue", "resume")
        ),
        "your own code and its driver before the send": stages["prepare"],
        "sending": stages["send"],
        "receiving": stages["receive"] + stages["read"],
    }
    named = [(ns / whole, words) for words, ns in parts.items() if ns >= _SHARE * whole]
    named = sorted(named, reverse=True) or [max((ns / whole, words) for words, ns in parts.items())]
    text = "; ".join(f"{share:.0%} is {words}" for share, words in named)
    sentence = f"Of all await time, {text}."
    guilty = [one for one in culprits(holds) if one["delayed_ns"] >= _SHARE * whole]
    if guilty:
        worst = max(guilty, key=lambda one: one["delayed_ns"])
        sentence += (
            f" {worst['culprit'] or 'Others on this machine'} held the loop ({worst['cause']}):"
            f" awaits waited {worst['delayed_ns'] / 1e6:,.0f} ms for it."
        )
    return sentence


def _lag_over_time(trace: Trace) -> list[Row]:
    """Return lag by cause and the longest ready queue, in equal slices of the trace."""
    start, end = trace.manifest["start_ns"], trace.manifest["end_ns"]
    width = max((end - start) // _SLICES, 1)
    causes = ", ".join(f"coalesce(sum({name}), 0)::BIGINT AS {name}" for name in LAG)
    rows = trace.rows(
        f"SELECT ((end_ns - $start) // $width)::INT AS slice, count(*) AS awaits, {causes}"
        ' FROM "await" WHERE task_id IS NOT NULL AND end_ns < $end GROUP BY slice ORDER BY slice',
        start=start,
        width=width,
        end=end,
    )
    lag = {row["slice"]: row for row in rows}
    longest = ready_queues(trace, start, width)
    nothing = {"awaits": 0, **dict.fromkeys(LAG, 0)}
    return [
        {
            "slice": number,
            **lag.get(number, nothing),
            "at_ns": number * width,
            "width_ns": width,
            "ready": longest.get(number, 0),
        }
        for number in sorted(lag.keys() | longest.keys())
        if 0 <= number * width < end - start
    ]


def ready_queues(trace: Trace, start_ns: int, width_ns: int) -> dict[int, int]:
    """Return how many tasks at most were ready at once on one loop, by number of the slice.

    A task is ready from its wakeup (step.wake_ns) to the begin of its step. While a loop is held
    nothing changes for many slices: the queue is as long in them as it was before.
    """
    rows = trace.rows(
        """
        WITH ready AS (SELECT tid, ts_ns, wake_ns FROM step
                        WHERE wake_ns > 0 AND wake_ns <= ts_ns),
        change AS (SELECT tid, wake_ns AS ts, 1 AS step FROM ready UNION ALL
                   SELECT tid, ts_ns, -1 FROM ready),
        depth AS (SELECT tid, ts, sum(step) OVER (PARTITION BY tid ORDER BY ts) AS n FROM change)
        SELECT tid, ((ts - $start) // $width)::INT AS slice, max(n)::INT AS longest,
               arg_max(n, ts)::INT AS last FROM depth GROUP BY tid, slice ORDER BY tid, slice""",
        start=start_ns,
        width=width_ns,
    )
    found: dict[int, int] = {}
    tid, begin, left = None, 0, 0  # `left` tasks are ready since the slice before `begin`
    for row in rows:
        if row["tid"] != tid:
            tid, begin, left = row["tid"], row["slice"], 0
        for number in range(begin, row["slice"] + 1):
            found[number] = max(found.get(number, 0), left)
        found[row["slice"]] = max(found[row["slice"]], row["longest"])
        begin, left = row["slice"] + 1, row["last"]
    return found


def _explained(trace: Trace, lines: list[Row], found: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the awaits that the page explains step by step, by await_id."""
    wanted = _default(trace) + [one["await_id"] for one in found if one["await_id"] is not None]
    for name in ("slowest", "median", "p99"):
        wanted += [line["examples"][name] for line in lines[:_EXPLAINED]]
    documents: dict[str, Any] = {}
    deadline = time.monotonic() + _EXPLAIN_S
    for await_id in dict.fromkeys(wanted):
        if len(documents) >= _EXPLAINED or time.monotonic() > deadline:
            break
        (row,) = await_rows(trace, await_id=await_id)
        if row["task_id"] is None:
            continue
        leg = leg_of(trace, row)
        steps = explain(trace, row, leg)
        documents[str(await_id)] = {
            "await": row,
            "steps": steps["steps"],
            "order": steps["observed_order"],
            "notes": steps["notes"],
            "insight": steps["insight"],
            "start_ns": leg["t0_ns"],
            "end_ns": leg["t8_ns"],
            "trip": leg["trip"],
            "stages": stage_spans(leg),
            "lanes": timed_lanes(steps),
        }
    return documents


def _default(trace: Trace) -> list[int]:
    """Return the await that `steps` shows if none is asked for."""
    try:
        return [choose(trace, None, None)["await_id"]]
    except Usage:  # none on a socket
        return []
