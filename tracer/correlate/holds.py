"""The `hold` table: what held a loop for long, one step, one callback or many small ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tracer.correlate import gaps, lag, reasons
from tracer.correlate.index import Bools, Index, Ints, distinct, ints, take
from tracer.correlate.samples import lines_of
from tracer.correlate.words import HELD_BY, LIBUV, MANY_CALLBACKS

if TYPE_CHECKING:
    from tracer.correlate.picture import Picture

FLOOR_NS = 1_000_000  # what is shorter has no row
NONE = -1
_RUN_OPEN = 128  # record.h
_STEP, _CALLBACK, _ITERATION = range(3)
_KINDS = np.array(["step", "callback", "iteration"], object)
_PARTS = {
    "on_cpu_ns": (lag.BUSY, lag.LOOP),
    "syscall_ns": (lag.SYSCALL,),
    "gil_ns": (lag.GIL,),
    "runq_ns": (lag.RUNQ,),
    "throttled_ns": (lag.THROTTLED,),
}


@dataclass
class _Holds:
    """Runs and iterations of at least FLOOR_NS.

    `run` is the run's number, NONE for an iteration; `longest` the longest run in it.
    """

    run: Ints
    tid: Ints
    start: Ints
    end: Ints
    count: Ints
    longest: Ints
    own: Ints


def hold_rows(p: Picture) -> dict[str, Any]:
    """Return the table's columns, in order of start; -1 where unknown."""
    holds = _found(p)
    runs, step = p.runs, p.events["step"]
    agent = take(runs.agent, holds.run)
    at_step, at_back = take(runs.step, holds.run), take(runs.callback, holds.run)
    task = p.tasks.find(np.maximum(agent, 0), take(step["task"], at_step, 0))
    kind = np.where(holds.run < 0, _ITERATION, np.where(at_step >= 0, _STEP, _CALLBACK))
    name = p.events.texts(np.maximum(agent, 0), take(p.events["callback"]["name_str"], at_back, 0))
    name[(holds.run >= 0) & (at_step < 0) & (at_back < 0)] = LIBUV
    where, where_from = _places(p, at_step, task)
    seen = lines_of(p.events.folder, holds.tid, holds.start, holds.end)
    sampled = seen["samples"] > 0
    where = np.where(sampled, seen["where"], where)
    parts = _parts(p, holds)
    lossy = gaps.touched(p.events, holds.start, holds.end)
    still = take(runs.flags, holds.run, 0) & _RUN_OPEN != 0
    bits = np.where(lossy, reasons.bit("ring_full"), 0)
    bits |= np.where(still, reasons.bit("trace_ended"), 0)
    mixed = (parts["gil_ns"] == NONE) | (parts["throttled_ns"] == NONE)
    bits |= np.where(mixed, reasons.bit("not_separated"), 0)
    return {
        "hold_id": np.arange(1, len(holds.run) + 1),
        "kind": _KINDS[kind],
        "task_id": np.where(task > 0, task, NONE),
        "name": name,
        "where": where,
        "where_from": np.where(sampled, np.array("sampled", object), where_from),
        "leaf": seen["leaf"],
        "chain": seen["chain"],
        "samples": seen["samples"],
        "c_function": seen["c_function"],
        "c_function_from": seen["c_function_from"],
        "tgid": _tgids(p, holds.tid, holds.start),
        "tid": ints(holds.tid),
        "start_ns": holds.start,
        "dur_ns": holds.end - holds.start,
        "own_ns": holds.own,
        "runs": holds.count,
        "longest_ns": holds.longest,
        "cause": _causes(parts, holds.run < 0),
        **parts,
        "complete": ~lossy & ~still,
        "reasons": bits,
    }


def _found(p: Picture) -> _Holds:
    """Return all holds, in order of start."""
    runs = p.runs
    long = np.flatnonzero(runs.end - runs.begin >= FLOOR_NS)
    length = runs.end[long] - runs.begin[long]
    alone = _Holds(
        run=long,
        tid=ints(runs.tid[long]),
        start=runs.begin[long],
        end=runs.end[long],
        count=np.ones(len(long), np.int64),
        longest=length,
        own=length - _inner(ints(runs.tid[long]), runs.begin[long], runs.end[long]),
    )
    both = [alone, *(_iterations(p, tid) for tid in distinct(ints(runs.tid)).tolist())]
    order = np.argsort(np.concatenate([h.start for h in both]), kind="stable")
    names = ("run", "tid", "start", "end", "count", "longest", "own")
    return _Holds(**{n: np.concatenate([getattr(h, n) for h in both])[order] for n in names})


def _inner(tid: Ints, begin: Ints, end: Ints) -> Ints:
    """Return the time of the runs directly inside each (eager tasks), all sorted by begin."""
    order = np.lexsort((-end, begin, tid))
    inner = np.zeros(len(tid), np.int64)
    around: list[int] = []
    for row in order.tolist():  # few: each took FLOOR_NS at least
        while around and (tid[around[-1]] != tid[row] or end[around[-1]] <= begin[row]):
            around.pop()
        if around:
            inner[around[-1]] += end[row] - begin[row]
        around.append(row)
    return inner


def _iterations(p: Picture, tid: int) -> _Holds:
    """Return a thread's loop iterations: from its wait's return to its last callback's end."""
    waits, runs = p.look.waits, p.runs
    mine = np.flatnonzero(runs.tid == tid)
    begin, end = runs.begin[mine], runs.end[mine]
    reach = np.maximum.accumulate(end) if len(end) else end
    polls = np.flatnonzero(waits.tid == tid)
    # one inside a run is not the loop's own
    outer = take(reach, np.searchsorted(begin, waits.begin[polls], side="right") - 1)
    start = np.sort(waits.end[polls[outer <= waits.begin[polls]]])
    first = np.searchsorted(begin, start)
    behind = np.append(first[1:], len(begin)) if len(start) else first
    kept = behind > first
    start, first, behind = start[kept], first[kept], behind[kept]
    over = reach[behind - 1]
    long = np.flatnonzero(over - start >= FLOOR_NS)
    start, first, behind, over = start[long], first[long], behind[long], over[long]
    edges = np.column_stack([first, behind]).ravel()
    longest = np.maximum.reduceat(np.append(end - begin, 0), edges)[::2] if len(long) else start
    return _Holds(
        run=np.full(len(long), NONE, np.int64),
        tid=np.full(len(long), tid, np.int64),
        start=start,
        end=over,
        count=ints(behind - first),
        longest=ints(longest),
        own=over - start,
    )


def _parts(p: Picture, holds: _Holds) -> dict[str, Ints]:
    """Return each hold's time by what its thread did, and what of the run queue's was stolen."""
    parts = {name: np.zeros(len(holds.run), np.int64) for name in _PARTS}
    stolen = np.zeros(len(holds.run), np.int64)
    for thread in distinct(holds.tid).tolist():
        rows = np.flatnonzero(holds.tid == thread)
        time = p.threads[thread]
        before, after = time.until(holds.start[rows]), time.until(holds.end[rows])
        for name, causes in _PARTS.items():
            parts[name][rows] = sum(after[cause] - before[cause] for cause in causes)
        stolen[rows] = time.stolen(holds.start[rows], holds.end[rows])
    if not p.threads.tells_throttled:
        parts["throttled_ns"][:] = NONE
    if not p.threads.tells_stolen:
        stolen[:] = NONE
    parts["gil_ns"][~p.threads.tell_gil(holds.tid)] = NONE
    return parts | {"stolen_ns": stolen}


def _causes(parts: dict[str, Ints], is_iteration: Bools) -> Any:  # noqa: ANN401
    """Return the word for the largest part; small callbacks are to blame only for what they did."""
    words = np.array(list(HELD_BY.values()), object)
    cause = words[np.argmax(np.stack([parts[name] for name in HELD_BY]), axis=0)]
    theirs = is_iteration & ((cause == "on_cpu") | (cause == "syscall"))
    return np.where(theirs, np.array(MANY_CALLBACKS, object), cause)


def _places(p: Picture, at_step: Ints, task_id: Ints) -> tuple[Any, Any]:
    """Return where each step went on: at its task's last await, or where its coroutine begins."""
    step, task = p.events["step"], p.events["task"]
    steps = Index(p.tasks.find(step["agent"], step["task"]), step["ts_ns"])
    previous = steps.before(task_id, take(step["ts_ns"], at_step), strict=True)
    birth = np.where(at_step >= 0, p.tasks.row[task_id], NONE)
    agent = take(step["agent"], at_step, 0)
    resumed = p.events.texts(agent, take(step["where_str"], previous, 0))
    defined = p.events.texts(agent, take(task["where_str"], birth, 0))
    first = (at_step >= 0) & (previous < 0)
    where = np.where(first, defined, resumed)
    words = np.where(first, np.array("defined", object), np.array("resumed", object))
    return where, np.where(where == "", np.array("", object), words)


def _tgids(p: Picture, tid: Ints, when: Ints) -> Ints:
    thread = p.events["thread"]
    return take(thread["tgid"], Index(thread["tid"], thread["ts_ns"]).before(tid, when))
