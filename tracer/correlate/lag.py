"""What a loop's thread was doing: exact time by cause between any two moments.

The thread's life is cut at every switch, waking, run and wait; each piece has one cause, so any
interval's causes sum to its length.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tracer.correlate.index import distinct, ints, take
from tracer.correlate.words import LAG
from tracer.system.syscalls import WAITS

if TYPE_CHECKING:
    from tracer.correlate.events import Events, Runs, Table
    from tracer.correlate.index import Bools, Ints

LOOP, BUSY, RUNQ, SYSCALL, GIL, THROTTLED = range(6)
_STOLEN = 6  # a part of RUNQ: runnable, and the hypervisor had the CPU
_WOKEN_EARLY = 64
OFF_THROTTLED, OFF_GIL = 1, 2  # record.h


class _Pieces:
    """Pieces of time without overlaps, and how much of them lies before any moment."""

    def __init__(self, start: Ints, length: Ints) -> None:
        self._start = start
        self._total = np.concatenate([np.zeros(1, np.int64), np.cumsum(length)])

    def until(self, when: Ints) -> Ints:
        """Return the time up to each moment, ns."""
        if not len(self._start):
            return np.zeros(len(when), np.int64)
        at = np.searchsorted(self._start, when, side="right") - 1
        before = at < 0
        at[before] = 0
        done = self._total[at]
        spent = done + np.minimum(when - self._start[at], self._total[at + 1] - done)
        spent[before] = 0
        return ints(spent)


def _inside(runs: Runs, ours: Ints, when: Ints) -> Bools:
    """Say of each moment whether it lies in a run of the thread: its waits there are no loop's."""
    reach = np.maximum.accumulate(runs.end[ours]) if len(ours) else ours
    return take(reach, np.searchsorted(runs.begin[ours], when, side="right") - 1) > when


class ThreadTime:
    """Cumulative time of one thread by cause; the loop's own is what no other cause has."""

    def __init__(
        self, tid: int, off: Table | dict[str, Any], stolen: Table | dict[str, Any], runs: Runs
    ) -> None:
        """Build the pieces of thread `tid` from the tables off_cpu and stolen, and the runs."""
        mine, ours = np.flatnonzero(off["tid"] == tid), np.flatnonzero(runs.tid == tid)
        out, state = off["ts_ns"][mine], off["state"][mine]
        back, wake_ns = out + off["dur_ns"][mine], off["wake_ns"][mine]
        early = off["flags"][mine] & _WOKEN_EARLY != 0
        woken = np.where((state == 0) | early, out, out + wake_ns)
        # never woken before it came back: it was not asleep, or the record is open
        woken = np.where((state != 0) & (wake_ns == 0) & ~early, back, woken)
        gil, throttled = off["why"][mine] & OFF_GIL != 0, off["why"][mine] & OFF_THROTTLED != 0
        waiting = np.isin(off["nr"][mine], list(WAITS)) & ~_inside(runs, ours, out)
        blocked = ~waiting & ~gil
        taken = np.flatnonzero(stolen["tid"] == tid)
        given_back = stolen["ts_ns"][taken] + stolen["dur_ns"][taken]
        spans = (
            (runs.begin[ours], runs.end[ours], BUSY),
            (stolen["ts_ns"][taken], given_back, _STOLEN),
            (out[waiting], woken[waiting], LOOP),
            (out[blocked], woken[blocked], SYSCALL),
            (out[gil], woken[gil], GIL),
            (woken[~throttled], back[~throttled], RUNQ),
            (woken[throttled], back[throttled], THROTTLED),
        )
        edges = distinct(np.concatenate([part for *span, _cause in spans for part in span]))
        causes = np.zeros(len(edges), np.int8)  # of the piece behind each edge; LOOP is 0
        for starts, ends, cause in spans:
            depth = np.bincount(np.searchsorted(edges, starts), minlength=len(edges))
            depth -= np.bincount(np.searchsorted(edges, ends), minlength=len(edges))
            causes[np.cumsum(depth) > 0] = cause
        lengths = np.diff(edges, append=edges[-1:])

        def pieces(which: Bools) -> _Pieces:
            return _Pieces(edges[which], lengths[which])

        self._stolen = pieces(causes == _STOLEN)
        causes[causes == _STOLEN] = RUNQ
        self._pieces = {
            cause: pieces(causes == cause) for cause in (BUSY, RUNQ, SYSCALL, GIL, THROTTLED)
        }

    def until(self, when: Ints) -> dict[int, Ints]:
        """Return the time spent for each cause up to each moment, from an arbitrary zero."""
        spent = {cause: pieces.until(when) for cause, pieces in self._pieces.items()}
        spent[LOOP] = when - sum(spent.values())
        return spent

    def between(self, start: Ints, end: Ints, cause: int) -> Ints:
        """Return the time spent for a cause in each interval, ns."""
        if cause != LOOP:
            return self._pieces[cause].until(end) - self._pieces[cause].until(start)
        return self.until(end)[cause] - self.until(start)[cause]

    def on_cpu(self, start: Ints, end: Ints) -> Ints:
        """Return the on-CPU time in runs, the loop's own work excluded, ns."""
        return self.between(start, end, BUSY)

    def stolen(self, start: Ints, end: Ints) -> Ints:
        """Return the part of RUNQ in which the hypervisor had the CPU, ns."""
        return self._stolen.until(end) - self._stolen.until(start)


class Threads:
    """The times of all threads that ran event loops, each made when first asked for."""

    def __init__(self, events: Events, runs: Runs) -> None:
        """Name the trace; nothing is computed yet."""
        self._off, self._stolen, self._runs = events["off_cpu"], events["stolen"], runs
        self._times: dict[int, ThreadTime] = {}
        self.tells_throttled = bool(events.manifest.get("tells_throttled"))
        self.tells_stolen = events.manifest.get("stolen_untold", "") is None
        agents = [bool(info.get("gil")) for info in events.manifest["agents"]] or [False]
        self._silent = distinct(ints(runs.tid[~np.array(agents)[runs.agent]]))

    def __getitem__(self, tid: int) -> ThreadTime:
        """Return a thread's time."""
        if tid not in self._times:
            self._times[tid] = ThreadTime(tid, self._off, self._stolen, self._runs)
        return self._times[tid]

    def tell_gil(self, tid: Ints) -> Bools:
        """Say of each loop's thread whether its waits for the GIL are known as such."""
        return ~np.isin(tid, self._silent)

    def on_cpu(self, tid: Ints, start: Ints, end: Ints) -> Ints:
        """Return the on-CPU time in runs of each thread in each interval, ns."""
        busy = np.zeros(len(tid), np.int64)
        for thread in distinct(tid).tolist():
            rows = np.flatnonzero(tid == thread)
            busy[rows] = self[thread].on_cpu(start[rows], end[rows])
        return busy


def split(
    threads: Threads, runs: Runs, tid: Ints, intervals: list[tuple[Ints, Ints]], own: Ints
) -> dict[str, Ints]:
    """Split intervals of loop threads by cause.

    Args:
        threads: the threads' times.
        runs: all runs.
        tid: loop thread of each row; rows without one stay 0.
        intervals: pairs of (start, end), each of the rows' length; empty ones have start = end.
        own: the run that is the row's own work (its callback), -1 for none.

    Returns:
        The columns of words.LAG: they sum to the intervals.

    """
    names = dict(zip(LAG, (BUSY, RUNQ, THROTTLED, GIL, SYSCALL, LOOP), strict=True))
    parts = {name: np.zeros(len(tid), np.int64) for name in names}
    for thread in distinct(tid[tid > 0]).tolist():
        rows = np.flatnonzero(tid == thread)
        time = threads[thread]
        mine = own[rows] >= 0
        held = np.maximum(own[rows], 0)
        for start, end in intervals:
            before, after = time.until(start[rows]), time.until(end[rows])
            for name, cause in names.items():
                parts[name][rows] += after[cause] - before[cause]
            if not mine.any():
                continue
            lo = np.where(mine, np.maximum(start[rows], runs.begin[held]), 0)
            hi = np.where(mine, np.minimum(end[rows], runs.end[held]), 0)
            self_ns = time.between(np.minimum(lo, hi), hi, BUSY)
            parts["loop_busy_ns"][rows] -= self_ns
            parts["loop_ns"][rows] += self_ns
    return parts
