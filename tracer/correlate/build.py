"""Correlate a finalised trace: write the tables of awaits, tasks, works and holds."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from tracer.correlate.awaits import Loose, await_columns, callback_columns, loose_of
from tracer.correlate.events import Events
from tracer.correlate.evidence import add_evidence
from tracer.correlate.hidden import hidden_rows
from tracer.correlate.holds import hold_rows
from tracer.correlate.index import Ints, sum_by
from tracer.correlate.legs import Legs, legs_of
from tracer.correlate.parts import Parts
from tracer.correlate.picture import Picture, picture_of
from tracer.correlate.setups import setup_rows
from tracer.correlate.tasks import task_rows
from tracer.correlate.works import work_rows

if TYPE_CHECKING:
    from tracer.store.layout import TraceFolder

TABLES = ("await", "leg", "task_total", "work_total", "hold", "await_syscall", "setup")
_AT_ONCE = 1 << 14  # awaits that are cut, explained and written together
_OF_TASK = ("task_name", "coroutine")


def correlate(folder: TraceFolder, manifest: dict[str, Any]) -> None:
    """Read the event tables, follow every await, write the result beside them."""
    with ThreadPoolExecutor(2) as pool:
        tables = _follow(pool, folder, picture_of(Events(folder, manifest)))
        for done in [pool.submit(table.finish) for table in tables]:  # the picture is freed by now
            done.result()


def _follow(pool: ThreadPoolExecutor, folder: TraceFolder, p: Picture) -> list[Parts]:
    """Write the parts of all tables; an await's number is its place in order of start."""
    awaits, legs, tasks, works, holds, hidden, setups = tables = [
        Parts(folder, name) for name in TABLES
    ]
    totals = _task_totals(p)
    tasks.add(totals)
    holds.add(_hold_rows(p, totals))
    loose = loose_of(p)
    start = np.concatenate(
        [
            p.sus.begin[np.searchsorted(p.sus.group, p.awaits)],
            p.events["syscall"]["ts_ns"][loose.head],
        ]
    )
    order = np.argsort(start, kind="stable")
    await_id = np.empty(len(order), np.int64)
    await_id[order] = np.arange(1, len(order) + 1)
    ended = np.full(len(p.events["work"]), -1, np.int64)
    names = [np.append(totals[name], np.array([""], object)) for name in _OF_TASK]
    setups.add(setup_rows(p, await_id))
    writing: list[Future[None]] = [pool.submit(hidden.add, hidden_rows(p, loose, await_id))]
    for first in range(0, max(len(order), 1), _AT_ONCE):
        rows, cut = _some_awaits(p, loose, order[first : first + _AT_ONCE], first + 1)
        owner = np.where(rows["task_id"] > 0, rows["task_id"], 0) - 1
        rows |= {name: known[owner] for name, known in zip(_OF_TASK, names, strict=True)}
        of_work = cut["work_id"] >= 0
        ended[cut["work_id"][of_work]] = cut["await_id"][of_work]
        for done in writing:
            done.result()
        writing = [pool.submit(awaits.add, rows), pool.submit(legs.add, cut)]
    works.add(work_rows(p, ended))
    for done in writing:
        done.result()
    return tables


def _hold_rows(p: Picture, totals: dict[str, Any]) -> dict[str, Any]:
    rows = hold_rows(p)
    owner = np.where(rows["task_id"] > 0, rows["task_id"], 0) - 1
    return rows | {n: np.append(totals[n], np.array([""], object))[owner] for n in _OF_TASK}


def _task_totals(p: Picture) -> dict[str, Any]:
    step, sus = p.events["step"], p.sus
    on_cpu = p.threads.on_cpu(step["tid"], step["ts_ns"], step["end_ns"])
    totals = task_rows(p.events, p.tasks, on_cpu)
    task = sus.task[np.searchsorted(sus.group, p.awaits)]
    totals["awaits"] = sum_by(task, np.ones(len(task), np.int64), p.tasks.count + 1)[1:]
    return totals


def _some_awaits(
    p: Picture, loose: Loose, which: Ints, first_id: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the columns of some awaits, and of their legs, in the given order.

    Args:
        p: the trace.
        loose: its rows without a task.
        which: numbers of awaits; those from p.sus.groups on are loose rows.
        first_id: await_id of the first.

    """
    is_loose = which >= p.sus.groups
    part = p.of_awaits(which[~is_loose])
    legs = legs_of(part)
    observed = add_evidence(part, legs)
    place = np.concatenate([np.flatnonzero(~is_loose), np.flatnonzero(is_loose)])
    both = (
        await_columns(part, legs),
        callback_columns(p, loose, which[is_loose] - p.sus.groups),
    )
    order = np.argsort(place)
    rows: dict[str, Any] = {"await_id": np.arange(first_id, first_id + len(which))}
    for name, value in both[0].items():
        other = both[1][name]
        if name == "fds":
            row = np.concatenate([value[0], other[0] + part.sus.groups])
            rows[name] = (place[row], np.concatenate([value[1], other[1]]))
        else:
            rows[name] = np.concatenate([value, other])[order]
    return rows, _leg_columns(legs, first_id + place[legs.group], observed)


def _leg_columns(legs: Legs, await_id: Ints, observed: Ints) -> dict[str, Any]:
    columns: dict[str, Any] = {
        "await_id": await_id,
        "trip": np.arange(len(legs.group))
        - np.searchsorted(legs.group, legs.group, side="left")
        + 1,
        "by": legs.by,
        "sock": legs.sock,
        "tid": legs.tid,
        "parked_ns": legs.parked,
        "observed_steps": observed,
        "reasons": legs.reasons,
    }
    columns |= {f"t{k}_ns": cut for k, cut in enumerate(legs.cuts)}
    return columns | legs.rows
