"""The `work_total` table: what a pool's thread did for a loop, and the await that it ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tracer.correlate import lag

if TYPE_CHECKING:
    from tracer.correlate.index import Ints
    from tracer.correlate.legs import Legs
    from tracer.correlate.picture import Picture


def work_rows(p: Picture, legs: Legs, await_of: Ints) -> dict[str, Any]:
    """Return the table's columns; times in ns, all within the worker's own thread."""
    work = p.events["work"]
    n = len(work["ts_ns"])
    begin, end, tid = work["ts_ns"], work["end_ns"], work["tid"]
    runq, blocked = np.zeros(n, np.int64), np.zeros(n, np.int64)
    for thread in np.unique(tid).tolist():
        rows = np.flatnonzero(tid == thread)
        time = lag.ThreadTime(thread, p.events["off_cpu"], p.runs)
        runq[rows] = time.between(begin[rows], end[rows], lag.RUNQ)
        blocked[rows] = time.between(begin[rows], end[rows], lag.SYSCALL)
    ended = np.full(n, -1, np.int64)
    of_leg = legs.rows["work_id"]
    ended[of_leg[of_leg >= 0]] = await_of[legs.group[of_leg >= 0]]
    tgids = [int(info.get("tgid", -1)) for info in p.events.manifest["agents"]] or [-1]
    task = p.tasks.find(work["agent"], work["task"])
    return {
        "work_id": np.arange(n),
        "await_id": ended,
        "task_id": np.where(task > 0, task, -1),
        "function": np.array(p.events.texts(work["agent"], work["name_str"]), object),
        "tgid": np.array(tgids, np.int64)[work["agent"]] if n else tid,
        "tid": tid,
        "given_ns": work["wake_ns"],
        "begin_ns": begin,
        "end_ns": end,
        "queued_ns": begin - work["wake_ns"],
        "cpu_ns": end - begin - runq - blocked,
        "runq_ns": runq,
        "blocked_ns": blocked,
    }
