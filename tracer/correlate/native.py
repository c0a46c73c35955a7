"""What libuv calls by itself: the runs that no agent can see, told by their system calls.

On uvloop a socket is read inside the loop, which then calls the protocol: nothing of Python's lies
between. Whatever comes from the ready queue, from a timer or to a descriptor's callback is a run
that the agent recorded; the rest of a loop iteration are such calls, one after the other, each
begun by a system call of its own: a read (of a socket, or of the descriptor by which threads,
signals and children are told of), an accept, the result of a connect, or the write of what a full
socket had left in libuv's buffer. (uvloop/handles/*.pyx, libuv's src/unix/stream.c, async.c)
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import duckdb
import numpy as np

from tracer.correlate.events import TIMER, Runs
from tracer.correlate.index import Bools, Index, Ints, lean, previous_in_group, take
from tracer.system import syscalls

if TYPE_CHECKING:
    from tracer.correlate.events import Events

_UVLOOP = 1  # record.h: LOOP_UVLOOP
_MOST_FDS = 76  # that a row of epoll_wait has
_BEGINNING = [*syscalls.RECVS, *(syscalls.NUMBER[n] for n in ("accept", "accept4", "getsockopt"))]


def with_native(events: Events, runs: Runs) -> Runs:
    """Add libuv's own calls, and let them be the wakers of what was made ready during them.

    The agent saw only in which of its own runs a task was made ready, which was none.
    """
    loop, call = events["loop"], events["syscall"]
    is_native = loop["flags"] & _UVLOOP > 0
    if not is_native.any():
        return runs
    loops = Index(loop["tid"], loop["ts_ns"])

    def on_native(tid: Ints, ts: Ints) -> Bools:
        seen = loops.before(tid, ts)
        return np.asarray((seen >= 0) & is_native[seen])

    begins = np.isin(call["nr"], _BEGINNING) | _flushes(events)
    rows = np.flatnonzero(begins & _of_ready(events))
    rows = rows[on_native(call["tid"][rows], call["ts_ns"][rows])]
    tid, begin = call["tid"][rows], call["ts_ns"][rows]
    wait = events["epoll_wait"]
    around = runs.containing(tid, begin)
    waits = Index(wait["tid"], wait["ts_ns"])
    polled = take(wait["ts_ns"], waits.before(tid, begin), 0)
    # a run from before the loop's last wait is one that runs this loop (a fork inside a task)
    rows = rows[(around < 0) | (take(runs.begin, around, 0) < polled)]
    tid, begin = call["tid"][rows], call["ts_ns"][rows]
    end = np.full(len(rows), int(events.manifest["end_ns"]), np.int64)
    for index, when in (
        (Index(tid, begin), begin),
        (waits, wait["ts_ns"]),
        (Index(runs.tid, runs.begin), runs.begin),
    ):
        following = take(when, index.after(tid, begin, strict=True))
        end = np.where(following >= 0, np.minimum(end, following), end)
    end = np.maximum(end - 1, begin)  # the following one begins then
    told = _woken_by_nobody(events, runs)
    merged, place = _merged(runs, take(loop["agent"], loops.before(tid, begin)), tid, begin, end)
    # made ready on the loop's own thread while none of the agent's runs was on
    woken = place[np.flatnonzero(told & on_native(runs.tid, runs.wake))]
    found = merged.containing(merged.tid[woken], merged.wake[woken])
    native = (found >= 0) & (take(merged.step, found) < 0) & (take(merged.callback, found) < 0)
    merged.waker[woken] = np.where(native, found, -1)
    return merged


def _of_ready(events: Events) -> Bools:
    """Say which calls are on a descriptor that their thread's last epoll_wait returned.

    Others are no doing of libuv's: what it called looks a name up, or asks somebody and waits.
    """
    of_ready = np.zeros(len(events["syscall"]), bool)
    syscall, wait = (events.folder.table_sql(name) for name in ("syscall", "epoll_wait"))
    found = duckdb.execute(
        f"""SELECT s.id FROM (SELECT id, tid, ts_ns, fd FROM read_parquet({syscall})) s
              ASOF JOIN (SELECT tid, ts_ns, fds FROM read_parquet({wait})) w
                ON w.tid = s.tid AND w.ts_ns <= s.ts_ns
             WHERE list_contains(w.fds, s.fd) OR len(w.fds) >= {_MOST_FDS}"""
    ).fetchnumpy()["id"]
    of_ready[found] = True
    return of_ready


def _flushes(events: Events) -> Bools:
    """Say which calls write what their socket, full the last time, had left in a buffer."""
    call, sends = events["syscall"], list(syscalls.SENDS)
    rows = np.flatnonzero(np.isin(call["nr"], sends) & (call["sock"] > 0))
    order = rows[np.lexsort((call["ts_ns"][rows], call["sock"][rows]))]
    before = take(order, previous_in_group(call["sock"][order]))
    flushes = np.zeros(len(call), bool)
    flushes[order] = take(call["ret"], before, 0) == -errno.EAGAIN
    return flushes


def _woken_by_nobody(events: Events, runs: Runs) -> Bools:
    """Say which runs were put on the ready queue on their own thread, but in no run."""
    step, back = events["step"]["waker_run"], events["callback"]["waker_run"]
    waker = np.where(runs.step >= 0, take(step, runs.step), take(back, runs.callback))
    at_once = runs.flags & TIMER == 0
    return np.asarray((waker == 0) & at_once & (runs.wake > 0) & (runs.wake_tid == runs.tid))


def _merged(runs: Runs, agent: Ints, tid: Ints, begin: Ints, end: Ints) -> tuple[Runs, Ints]:
    """Return the runs with others among them, and the new number of each old one."""
    count, more = len(runs.begin), len(begin)
    order = np.argsort(np.concatenate([runs.begin, begin]), kind="stable")
    place = np.empty(count + more, np.int64)
    place[order] = np.arange(count + more)
    zero, none = np.zeros(more, np.int64), np.full(more, -1, np.int64)

    def joined(old: Ints, new: Ints) -> Ints:
        return np.concatenate([old, new])[order]

    merged = Runs(
        agent=lean(joined(runs.agent, agent)),
        tid=joined(runs.tid, tid),
        begin=joined(runs.begin, begin),
        end=joined(runs.end, end),
        wake=joined(runs.wake, zero),
        wake_tid=joined(runs.wake_tid, zero),
        flags=joined(runs.flags, zero),
        step=lean(joined(runs.step, none)),
        callback=lean(joined(runs.callback, none)),
        waker=joined(take(place, runs.waker), none),
        of_step=lean(take(place, runs.of_step)),
        of_callback=lean(take(place, runs.of_callback)),
    )
    return merged, place[:count]
