"""Sends that a task made for the one that created it (aiohttp and redis write requests that way).

Such a task ends without ever waiting after its send, so no row of its own carries the bytes. They
are its creator's if that one parked after the step that created it, until the task ended; or if it
was woken by a receive on that very socket, and neither it (in that step) nor a second such task
had sent there.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from tracer.correlate.gaps import touched
from tracer.correlate.index import Keys, distinct, lean, take
from tracer.correlate.tasks import HOW_YIELD
from tracer.correlate.wakes import BY_RECV, BY_TASK

if TYPE_CHECKING:
    from tracer.correlate.calls import Calls
    from tracer.correlate.events import Events, Runs
    from tracer.correlate.tasks import Suspensions, Tasks
    from tracer.correlate.wakes import Wakes


def with_errands(  # noqa: PLR0913, PLR0917 (what the passes before it made)
    events: Events, runs: Runs, calls: Calls, sus: Suspensions, wakes: Wakes, tasks: Tasks
) -> Calls:
    """Return the calls with such sends moved into the run of the creator's step."""
    call, step, task = events["syscall"], events["step"], events["task"]
    sends, run = calls.sends, calls.sends.run
    at = take(runs.step, run)
    over = np.flatnonzero(take(step["how"], at, 0) > HOW_YIELD)
    agent, by_task = take(step["agent"], at[over]), sends.task[over]
    birth = tasks.row[by_task]
    creators = Keys(step["agent"] << 32 | step["run"])
    creator = creators.find(agent << 32 | take(task["run"], birth, 0))
    creator = np.where(birth >= 0, take(runs.of_step, creator), -1)
    parked = np.where(creator >= 0, Keys(sus.run).find(creator), -1)
    sock, ts = call["sock"][sends.row[over]], call["ts_ns"][sends.row[over]]
    by, woken_on = take(wakes.by, parked), take(wakes.sock, parked)
    known = (parked >= 0) & ~touched(events, take(sus.begin, parked, 0), take(sus.resume, parked))
    awaited = known & (by == BY_TASK) & (take(wakes.root, parked) == run[over])
    fits = known & (by == BY_RECV) & (woken_on == sock)
    fits &= ts < take(call["ts_ns"], take(wakes.call, parked))
    socks = distinct(call["sock"][sends.row])
    used = run.astype(np.int64) * len(socks) + np.searchsorted(socks, call["sock"][sends.row])
    fits &= ~np.isin(creator.astype(np.int64) * len(socks) + np.searchsorted(socks, sock), used)
    one, other = np.full(sus.count, 1 << 62, np.int64), np.full(sus.count, -1, np.int64)
    np.minimum.at(one, parked[fits], by_task[fits])
    np.maximum.at(other, parked[fits], by_task[fits])
    fits &= take(one, parked) == take(other, parked)
    # where the row then waits for the answer, the request is a part of that trip
    then = np.where(parked + 1 < sus.count, parked + 1, -1)
    trip = awaited & (take(sus.group, then) == take(sus.group, parked))
    trip &= (take(wakes.by, then) == BY_RECV) & (take(wakes.sock, then) == sock)
    target = np.where(trip, take(sus.run, then), creator)
    fits |= awaited
    moved = run.astype(np.int64)
    moved[over[fits]] = target[fits]
    return replace(calls, sends=replace(sends, run=lean(moved)))
