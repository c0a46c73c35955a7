"""Rows of `blocking`: what held a loop, why, and whom it delayed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tracer.correlate import reasons
from tracer.correlate.lag import OFF_GIL
from tracer.correlate.words import HELD_BY, LIBUV
from tracer.report.holders import holders
from tracer.system.syscalls import name_of

if TYPE_CHECKING:
    from tracer.correlate.trace import Row, Trace

_NO_SYSCALL = 65535  # record.h: off_cpu.nr of a thread that was in none: a page fault
_WORST = 5
_KEYS = (
    "task_id",
    "task_name",
    "coroutine",
    "name",
    "where",
    "where_from",
    "leaf",
    "c_function",
    "c_function_from",
    "samples",
    "kind",
    "tgid",
    "tid",
)
# a task is ready from here on: its data, its deadline or its waking is there
READY = "coalesce(t4_ns, t5_ns, t6_ns, t7_ns)"


def blocking_rows(trace: Trace, over_ns: int) -> list[Row]:
    """Return what held a loop longer than `over_ns`, in order of time, in the contract's keys.

    A step or callback has a row if it took longer by itself, a loop iteration if it did and none
    of its steps and callbacks has. `waited` are the awaits that it delayed most.
    """
    trace.connection.execute(
        'CREATE OR REPLACE TEMP TABLE chosen AS SELECT *, start_ns + dur_ns AS end_ns FROM "hold"'
        " WHERE own_ns > $over AND (kind <> 'iteration' OR longest_ns <= $over)",
        {"over": over_ns},
    )
    calls, contents, delays = _calls(trace), _contents(trace), _delays(trace)
    held_by = _by_hold(holders(trace))
    rows = []
    for hold in trace.rows("SELECT * FROM chosen ORDER BY hold_id"):
        row: dict[str, Any] = {"hold_id": hold["hold_id"]}
        row |= {key: None if hold[key] == "" else hold[key] for key in _KEYS}
        row["chain"] = hold["chain"].splitlines()
        row |= {key: hold[key] for key in ("start_ns", "dur_ns", "cause", *HELD_BY, "stolen_ns")}
        waited = delays.get(hold["hold_id"], [])
        row |= {
            "syscalls": calls.get(hold["hold_id"], []),
            "holders": held_by.get(hold["hold_id"], []),
            "runs": hold["runs"],
            "ran": _with_native(hold, contents.get(hold["hold_id"], [])),
            "delayed_awaits": len(waited),
            "delayed_ns": sum(wait["delay_ns"] for wait in waited),
            "waited": waited[:_WORST],
            "complete": hold["complete"],
            "reasons": reasons.names(hold["reasons"]),
        }
        rows.append(row)
    return rows


def _by_hold(rows: list[Row]) -> dict[int, list[Row]]:
    found: dict[int, list[Row]] = {}
    for row in rows:
        found.setdefault(row.pop("hold_id"), []).append(row)
    return found


def _calls(trace: Trace) -> dict[int, list[Row]]:
    """Return the system calls of each chosen hold, the longest first.

    A call shorter than 1 ms has mostly no record: each of its sleeps counts as one then. Those in
    which the thread waited for the GIL are left out: they are no call of the program's.
    """
    rows = trace.rows(
        """
        WITH call AS (
          SELECT hold_id, s.nr, s.ts_ns, s.ts_ns + s.dur_ns AS end_ns
            FROM chosen h JOIN syscall s ON s.tid = h.tid
             AND s.ts_ns >= h.start_ns AND s.ts_ns < h.end_ns),
        sleep AS (
          SELECT hold_id, o.nr, o.ts_ns, o.dur_ns, o.why & $gil > 0 AS is_gil
            FROM chosen h JOIN off_cpu o ON o.tid = h.tid AND o.state <> 0
             AND o.ts_ns >= h.start_ns AND o.ts_ns < h.end_ns)
        SELECT hold_id, nr, count(*) AS count, sum(dur_ns)::BIGINT AS dur_ns FROM (
          SELECT hold_id, nr, end_ns - ts_ns AS dur_ns FROM call WHERE NOT EXISTS (
            FROM sleep WHERE is_gil AND sleep.hold_id = call.hold_id AND sleep.nr = call.nr
             AND call.ts_ns <= sleep.ts_ns AND call.end_ns >= sleep.ts_ns)
          UNION ALL
          SELECT hold_id, nr, dur_ns FROM sleep WHERE NOT is_gil AND NOT EXISTS (
            FROM call WHERE call.hold_id = sleep.hold_id AND call.ts_ns <= sleep.ts_ns
             AND call.end_ns >= sleep.ts_ns))
        GROUP BY ALL ORDER BY hold_id, dur_ns DESC, nr""",
        gil=OFF_GIL,
    )
    for row in rows:
        nr = row.pop("nr")
        row["name"] = "page_fault" if nr == _NO_SYSCALL else name_of(nr)
    return _by_hold(rows)


def _contents(trace: Trace) -> dict[int, list[Row]]:
    """Return what each chosen iteration ran, by name, the longest first."""
    rows = trace.rows(
        """
        WITH run AS (
          SELECT hold_id, r.agent, r.name_str, 0 AS task, r.end_ns - r.ts_ns AS dur_ns
            FROM chosen h JOIN callback r ON r.tid = h.tid
             AND r.ts_ns >= h.start_ns AND r.ts_ns < h.end_ns WHERE h.kind = 'iteration'
          UNION ALL
          SELECT hold_id, r.agent, t.coro_str, r.task, r.end_ns - r.ts_ns
            FROM chosen h JOIN step r ON r.tid = h.tid
             AND r.ts_ns >= h.start_ns AND r.ts_ns < h.end_ns
            LEFT JOIN task t ON t.agent = r.agent AND t.task = r.task WHERE h.kind = 'iteration')
        SELECT hold_id, coalesce(s.text, '') AS name, count(*) AS count,
               sum(dur_ns)::BIGINT AS dur_ns
          FROM run LEFT JOIN string s ON s.agent = run.agent AND s.id = run.name_str
         GROUP BY ALL ORDER BY hold_id, dur_ns DESC, name"""
    )
    return _by_hold(rows)


def _with_native(hold: Row, ran: list[Row]) -> list[Row]:
    """Add what libuv called by itself in an iteration: that has no records, but counts."""
    more = hold["runs"] - sum(row["count"] for row in ran)
    if hold["kind"] != "iteration" or more <= 0:
        return ran
    rest_ns = max(hold["dur_ns"] - sum(row["dur_ns"] for row in ran), 0)
    native = {"name": LIBUV, "count": more, "dur_ns": rest_ns}
    return sorted([*ran, native], key=lambda row: -row["dur_ns"])


def _delays(trace: Trace) -> dict[int, list[Row]]:
    """Return the awaits that each chosen hold delayed, the most delayed first."""
    rows = trace.rows(
        f"""
        WITH ready AS (
          SELECT await_id, tid, {READY} AS ready_ns, t8_ns FROM leg WHERE {READY} < t8_ns)
        SELECT hold_id, a.await_id, a.task_id, a.task_name, a."where",
               sum(least(h.end_ns, r.t8_ns) - greatest(h.start_ns, r.ready_ns))::BIGINT AS delay_ns
          FROM chosen h JOIN ready r ON r.tid = h.tid
           AND r.ready_ns < h.end_ns AND r.t8_ns > h.start_ns
          JOIN "await" a USING (await_id)
         GROUP BY ALL ORDER BY hold_id, delay_ns DESC, await_id"""
    )
    return _by_hold(rows)


def culprits(rows: list[Row]) -> list[Row]:
    """Return the totals of each culprit line and cause, the costliest first."""
    totals: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        who = culprit(row)
        total = totals.setdefault(
            (who, row["cause"]),
            {"culprit": who, "cause": row["cause"]}
            | dict.fromkeys(("count", "dur_ns", "max_ns", "delayed_awaits", "delayed_ns"), 0),
        )
        total["count"] += 1
        total["max_ns"] = max(total["max_ns"], row["dur_ns"])
        for key in ("dur_ns", "delayed_awaits", "delayed_ns"):
            total[key] += row[key]
    return sorted(totals.values(), key=lambda t: (-t["dur_ns"], str(t["culprit"])))


def culprit(row: Row) -> str | None:
    """Return whom to blame: nobody's line if the code did not do it."""
    if row["cause"] in ("preempted", "throttled"):
        return None
    ran: str | None = row["ran"][0]["name"] if row["ran"] else None
    found: str | None = row["where"] or row["name"]
    return found or ran or row["coroutine"]


def suffered_most(trace: Trace) -> Row | None:
    """Return the task that the holds chosen last delayed most, over all its awaits."""
    by_task: dict[int, Row] = {}
    for waits in _delays(trace).values():
        for wait in waits:
            if wait["task_id"] is None:
                continue
            task = by_task.setdefault(
                wait["task_id"],
                {"task_id": wait["task_id"], "task_name": wait["task_name"], "delayed_ns": 0},
            )
            task["delayed_ns"] += wait["delay_ns"]
    return max(by_task.values(), key=lambda t: t["delayed_ns"], default=None)
