"""Rows of `awaits` and `tasks`, in the contract's keys and a few more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tracer.correlate import reasons
from tracer.correlate.words import LAG, STAGES
from tracer.errors import Usage
from tracer.report.setups import setups_of
from tracer.system.syscalls import name_of

if TYPE_CHECKING:
    from tracer.correlate.trace import Row, Trace

GROUPS = {"where": '"where"', "coroutine": "coroutine", "task": "task_name"}


def await_rows(  # noqa: PLR0913 (each a filter)
    trace: Trace,
    *,
    task: str | None = None,
    kind: str | None = None,
    slowest: int | None = None,
    await_id: int | None = None,
    between: tuple[int, int] | None = None,
) -> list[Row]:
    """Return awaits, in order of time or the slowest first.

    Args:
        trace: the trace.
        task: a task_id or a task name; Usage if the trace has none such.
        kind: one of words.KINDS.
        slowest: only so many, slowest first.
        await_id: only this one; Usage if the trace has none such.
        between: only those with numbers from the first to before the second.

    """
    where, values = ["true"], []
    if task is not None:
        where.append("(task_name = ? OR CAST(task_id AS VARCHAR) = ?)")
        values += [task, task]
    if kind is not None:
        where.append("kind = ?")
        values.append(kind)
    if await_id is not None:
        where.append("await_id = ?")
        values.append(str(await_id))
    if between is not None:
        where.append("await_id >= ? AND await_id < ?")
        values += [str(bound) for bound in between]
    order = f"total_ns DESC, await_id LIMIT {slowest}" if slowest is not None else "await_id"
    rows = trace.rows(
        f'SELECT * FROM "await" WHERE {" AND ".join(where)} ORDER BY {order}', *values
    )
    if not rows and await_id is not None:
        raise Usage(f"the trace has no await {await_id}", "see `awaitscope awaits`")
    if not rows and task is not None:
        require_task(trace, task)
    works = _works(trace, [row["await_id"] for row in rows if row["ended_by"] == "thread"])
    ids = [row["await_id"] for row in rows]
    calls, setups = _calls(trace, ids), setups_of(trace, ids)
    return [
        contract_row(row)
        | {
            "syscalls": calls[row["await_id"]],
            "setup": setups.get(row["await_id"], []),
            "thread": works.get(row["await_id"]),
        }
        for row in rows
    ]


def _calls(trace: Trace, await_ids: list[int]) -> dict[int, list[Row]]:
    """Return what each of these awaits did besides networking, its calls summed by name."""
    found: dict[int, list[Row]] = {await_id: [] for await_id in await_ids}
    for call in trace.rows(
        "SELECT * FROM await_syscall WHERE await_id BETWEEN $1 AND $2"
        " AND await_id IN (SELECT unnest($3)) ORDER BY await_id, dur_ns DESC, nr",
        min(await_ids, default=0),
        max(await_ids, default=0),
        await_ids,
    ):
        found[call.pop("await_id")].append(_named(call))
    return found


def _named(call: Row) -> Row:
    """Return a summed system call with its name for its number."""
    return {"name": name_of(call.pop("nr")), **call}


def _works(trace: Trace, await_ids: list[int]) -> dict[int, Row]:
    """Return what a pool's thread did for each of these awaits, its system calls summed by name."""
    if not await_ids:
        return {}
    works = trace.rows("SELECT * FROM work_total WHERE await_id IN (SELECT unnest(?))", await_ids)
    calls = trace.rows(
        "SELECT work_id, nr, count(*) AS count, sum(dur_ns)::BIGINT AS dur_ns"
        " FROM work_total AS work JOIN syscall AS call ON call.tid = work.tid"
        " AND call.ts_ns BETWEEN work.begin_ns AND work.end_ns"
        " WHERE await_id IN (SELECT unnest(?)) GROUP BY ALL ORDER BY dur_ns DESC, nr",
        await_ids,
    )
    by_work: dict[int, list[Row]] = {work["work_id"]: [] for work in works}
    for call in calls:
        by_work[call.pop("work_id")].append(_named(call))
    for work in works:
        work["syscalls"] = by_work[work["work_id"]]
    return {work.pop("await_id"): work for work in works}


def require_task(trace: Trace, task: str) -> None:
    """Raise Usage if the trace has no task of this name or number."""
    sql = "SELECT 1 FROM task_total WHERE task_name = ? OR CAST(task_id AS VARCHAR) = ? LIMIT 1"
    if not trace.rows(sql, task, task):
        raise Usage(f"the trace has no task {task}", "see `awaitscope tasks`")


def contract_row(row: Row) -> Row:
    """Return a stored await in the contract's form."""
    keys = (
        "await_id",
        "task_id",
        "task_name",
        "coroutine",
        "where",
        "kind",
        "tgid",
        "tid",
        "fds",
        "peer",
        "sent_bytes",
        "recv_bytes",
        "round_trips",
        "start_ns",
        "suspend_ns",
        "end_ns",
        "total_ns",
    )
    shown: dict[str, Any] = {key: row[key] for key in keys}
    shown["peer"] = row["peer"] or None
    shown["stages"] = {f"{name}_ns": row[f"{name}_ns"] for name in STAGES}
    shown["lag"] = {name: row[name] for name in LAG}
    shown["ended_by"] = {"type": row["ended_by"], "id": row["ended_id"]}
    for key in ("outcome", "attribution", "complete"):
        shown[key] = row[key]
    shown["reasons"] = reasons.names(row["reasons"])
    return shown


def group_rows(trace: Trace, by: str, kind: str | None = None) -> list[Row]:
    """Return awaits grouped by source line, coroutine or task name, the costliest group first."""
    shares = ", ".join(f"sum(coalesce({n}_ns, 0))::DOUBLE AS {n}" for n in STAGES)
    lags = ", ".join(f"sum(coalesce({n}, 0))::DOUBLE AS lag_{n}" for n in LAG)
    rows = trace.rows(
        f"SELECT {GROUPS[by]} AS grp, count(*) AS count,"
        " quantile_disc(total_ns, 0.5) AS p50, quantile_disc(total_ns, 0.95) AS p95,"
        " quantile_disc(total_ns, 0.99) AS p99, max(total_ns) AS max,"
        f" sum(total_ns)::BIGINT AS total, {shares}, {lags}"
        ' FROM "await" WHERE task_id IS NOT NULL AND (? IS NULL OR kind = ?)'
        " GROUP BY 1 ORDER BY total DESC, 1",
        kind,
        kind,
    )
    calls = _calls_of_groups(trace, by, kind)
    return [
        {
            "group": row["grp"],
            "count": row["count"],
            "total_ns": {
                "p50": row["p50"],
                "p95": row["p95"],
                "p99": row["p99"],
                "max": row["max"],
                "sum": row["total"],
            },
            "stages": {n: _share(row[n], row["total"]) for n in STAGES},
            "lag": {n.removesuffix("_ns"): _share(row[f"lag_{n}"], row["total"]) for n in LAG},
            "syscalls": [
                {
                    **call,
                    "per_await": round(call["count"] / row["count"], 6),
                    "share": _share(call["dur_ns"], row["total"]),
                }
                for call in calls.get(row["grp"], [])
            ],
        }
        for row in rows
    ]


def _calls_of_groups(trace: Trace, by: str, kind: str | None) -> dict[str, list[Row]]:
    """Return what the awaits of each group did besides networking, summed by name."""
    found: dict[str, list[Row]] = {}
    for call in trace.rows(
        f"SELECT {GROUPS[by]} AS grp, nr, sum(call.count)::BIGINT AS count,"
        " sum(call.dur_ns)::BIGINT AS dur_ns"
        ' FROM await_syscall AS call JOIN "await" USING (await_id)'
        " WHERE task_id IS NOT NULL AND ($1 IS NULL OR kind = $1)"
        " GROUP BY 1, 2 ORDER BY dur_ns DESC, nr",
        kind,
    ):
        found.setdefault(call.pop("grp"), []).append(_named(call))
    return found


def _share(part: float, whole: float) -> float:
    return round(part / whole, 6) if whole else 0.0


def task_rows(trace: Trace) -> list[Row]:
    """Return all tasks in order of birth."""
    return trace.rows("SELECT * EXCLUDE (agent, serial) FROM task_total ORDER BY task_id")
