"""The `work_total` table: what an executor did for a loop, and the await that it ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tracer.correlate import lag
from tracer.correlate.index import Index, Ints, distinct, take
from tracer.correlate.processes import NONE, ran_in_processes

if TYPE_CHECKING:
    from tracer.correlate.picture import Picture


_OFF_CPU = {
    "runq_ns": lag.RUNQ,
    "throttled_ns": lag.THROTTLED,
    "gil_ns": lag.GIL,
    "blocked_ns": lag.SYSCALL,
}


def work_rows(p: Picture, ended: Ints) -> dict[str, Any]:
    """Return the table's columns; times in ns, of the worker's own thread; -1 where unknown.

    Args:
        p: the trace.
        ended: the await that each work's end ended, -1 for none.

    """
    work, thread = p.events["work"], p.events["thread"]
    n = len(work["ts_ns"])
    tid, begin, end = work["tid"].copy(), work["ts_ns"].copy(), work["end_ns"].copy()
    elsewhere = np.flatnonzero(end == 0)
    tid[elsewhere], begin[elsewhere], end[elsewhere] = ran_in_processes(p, elsewhere)
    columns = {name: np.full(n, NONE, np.int64) for name in ("cpu_ns", *_OFF_CPU)}
    for worker in distinct(tid[tid > 0]).tolist():
        rows = np.flatnonzero(tid == worker)
        time = p.threads[worker]
        columns["cpu_ns"][rows] = end[rows] - begin[rows]
        for name, cause in _OFF_CPU.items():
            columns[name][rows] = time.between(begin[rows], end[rows], cause)
            columns["cpu_ns"][rows] -= columns[name][rows]
    task = p.tasks.find(work["agent"], work["task"])
    return {
        "work_id": np.arange(n),
        "await_id": ended,
        "task_id": np.where(task > 0, task, NONE),
        "function": p.events.texts(work["agent"], work["name_str"]),
        "tgid": take(thread["tgid"], Index(thread["tid"], thread["ts_ns"]).before(tid, begin)),
        "tid": tid,
        "given_ns": work["wake_ns"],
        "begin_ns": begin,
        "end_ns": end,
        "queued_ns": np.where(begin >= 0, np.maximum(begin - work["wake_ns"], 0), NONE),
        **columns,
    }
