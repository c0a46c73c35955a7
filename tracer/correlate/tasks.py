"""Tasks with ids of our own, and their suspensions in order."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from tracer.correlate.index import Ints, Keys, lean, of_rows, previous_in_group, sum_by, take

if TYPE_CHECKING:
    from tracer.correlate.events import Events, Runs

HOW_FUTURE, HOW_TASK, HOW_GATHER, HOW_YIELD = 1, 2, 3, 4
HOW_FAILED, HOW_CANCELLED = 6, 7


class Tasks:
    """All tasks of all agents; task_id counts from 1 in order of birth."""

    def __init__(self, events: Events) -> None:
        """Number the tasks; one whose birth was lost is born with its first step."""
        task, step = events["task"], events["step"]
        born = task["agent"] << 32 | task["task"]
        seen = step["agent"] << 32 | step["task"]
        keys = np.concatenate([born, seen])
        when = np.concatenate([task["ts_ns"], step["ts_ns"]])
        unique, first = np.unique(keys, return_index=True)
        birth = when[first]
        order = np.lexsort((unique, birth))
        self._keys = Keys(unique)
        self._id = np.empty(len(unique), np.int64)
        self._id[order] = np.arange(1, len(unique) + 1)
        self.count = len(unique)
        self.key = np.concatenate([[0], unique[order]])  # task_id -> agent << 32 | ev_task.task
        self.row = np.full(self.count + 1, -1, np.int64)  # task_id -> row of `task`
        self.row[self.find(task["agent"], task["task"])] = np.arange(len(born))
        self.named = np.zeros(self.count + 1, bool)
        self.named[self.find(task["agent"], task["task"])] = task["name"] != ""
        self.created = np.zeros(self.count + 1, np.int64)
        self.created[self._id] = birth

    def find(self, agent: Ints, serial: Ints) -> Ints:
        """Return the task_id of each (agent, serial), 0 for serial 0 or an unknown one."""
        at = self._keys.find(agent << 32 | serial)
        return np.where(serial > 0, take(self._id, at, 0), 0)


@dataclass
class Suspensions:
    """One entry per suspension, sorted by (task, time).

    A suspension goes from the begin of the step that ends in it (`begin`) over the parking
    (`parked`) to the begin of the task's next step (`resume`; the end of the trace if open).
    Rows of `step` and of the runs are given by number, -1 for none. `group` numbers the await
    that it belongs to.
    """

    task: Ints
    agent: Ints
    tid: Ints
    step: Ints
    next_step: Ints
    run: Ints
    next_run: Ints
    begin: Ints
    parked: Ints
    resume: Ints
    wake: Ints
    waker: Ints
    next_flags: Ints
    how: Ints
    group: Ints
    count: int
    groups: int

    @cached_property
    def row_begin(self) -> Ints:
        """Return when the await of each suspension began, ns."""
        return self.begin[np.searchsorted(self.group, self.group)]

    def of_rows(self, rows: Ints) -> Suspensions:
        """Return some suspensions, with all of an await together, their awaits numbered anew."""
        columns = of_rows(self, rows)
        group = columns["group"]
        fresh = np.ones(len(group), bool)
        fresh[1:] = group[1:] != group[:-1]
        columns["group"] = np.cumsum(fresh) - 1
        return replace(self, **columns, count=len(rows), groups=int(fresh.sum()))


def suspensions_of(events: Events, runs: Runs, tasks: Tasks) -> Suspensions:
    """Pair every suspension with the step that ends it and group them by what was awaited."""
    step = events["step"]
    end_ns = int(events.manifest["end_ns"])
    task_of = tasks.find(step["agent"], step["task"])
    order = np.lexsort((step["ts_ns"], task_of))
    task, how, row = task_of[order], step["how"][order], step["row"][order]
    following = np.full(len(order), -1, np.int64)
    if len(order):
        same = task[1:] == task[:-1]
        following[:-1] = np.where(same, order[1:], -1)
    parked = (how >= HOW_FUTURE) & (how <= HOW_YIELD)
    order, following, task, how, row = (a[parked] for a in (order, following, task, how, row))
    before = previous_in_group(task)
    fresh = (before < 0) | (take(row, before) != row)
    group = np.cumsum(fresh) - 1
    run, next_run = take(runs.of_step, order), take(runs.of_step, following)
    is_open = following < 0
    # an await that was open when the recording ended may have been parked after it, too
    parked_ns = step["end_ns"][order]
    end = np.maximum(end_ns, parked_ns)
    resume = np.where(is_open, end, take(step["ts_ns"], following))
    return Suspensions(
        task=lean(task),
        agent=step["agent"][order],
        tid=lean(np.where(is_open, step["tid"][order], take(step["tid"], following))),
        step=lean(order),
        next_step=lean(following),
        run=lean(run),
        next_run=lean(next_run),
        begin=step["ts_ns"][order],
        parked=parked_ns,
        resume=resume,
        wake=np.where(is_open, resume, take(runs.wake, next_run)),
        waker=lean(take(runs.waker, next_run)),
        next_flags=lean(take(step["flags"], following, 0)),
        how=how,
        group=lean(group),
        count=len(order),
        groups=int(group[-1]) + 1 if len(group) else 0,
    )


def task_rows(events: Events, tasks: Tasks, on_cpu: Ints) -> dict[str, object]:
    """Return the columns of the `tasks` table.

    Args:
        events: the trace.
        tasks: its tasks.
        on_cpu: on-CPU time of each step, ns, in rows of `step`.

    """
    task, step = events["task"], events["step"]
    n = tasks.count + 1
    of_step = tasks.find(step["agent"], step["task"])
    row = tasks.row
    agent = take(task["agent"], row, 0)
    parent = tasks.find(agent, take(task["parent"], row, 0))
    parent = np.where(parent > 0, parent, -1)
    length = step["end_ns"] - step["ts_ns"]
    longest = np.zeros(n, np.int64)
    np.maximum.at(longest, of_step, length)
    ended = np.full(n, -1, np.int64)
    over = step["how"] > HOW_YIELD
    ended[of_step[over]] = step["end_ns"][over]
    tgids = [int(info.get("tgid", -1)) for info in events.manifest["agents"]] or [-1]
    names = np.append(task["name"], np.array([""], object))[row]
    coroutine = events.texts(agent, take(task["coro_str"], row, 0))
    return {
        "task_id": np.arange(1, n),
        "task_name": np.array(names[1:], object),
        "coroutine": np.array(coroutine[1:], object),
        "parent_task_id": parent[1:],
        "tgid": np.array(tgids, np.int64)[agent][1:],
        "tid": take(task["tid"], row)[1:],
        "loop": take(task["loop"], row)[1:],
        "created_ns": tasks.created[1:],
        "ended_ns": ended[1:],
        "steps": np.bincount(of_step, minlength=n).astype(np.int64)[1:],
        "cpu_ns": sum_by(of_step, on_cpu, n)[1:],
        "longest_step_ns": longest[1:],
        "agent": tasks.key[1:] >> 32,
        "serial": tasks.key[1:] & 0xFFFFFFFF,
    }
