"""What a loop's thread was doing: exact time by cause between any two moments.

The thread's life is cut at every switch, waking, run and wait; each piece has one cause, so any
interval's causes sum to its length.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tracer.correlate.events import Events, Runs
    from tracer.correlate.index import Ints

LOOP, BUSY, RUNQ, SYSCALL = range(4)
_EPOLL = (232, 281, 441)
_WOKEN_EARLY = 64


class ThreadTime:
    """Cumulative time of one thread by cause."""

    def __init__(self, tid: int, off: dict[str, Any], runs: Runs) -> None:
        """Build the pieces of thread `tid` from the off_cpu table and the runs."""
        mine = off["tid"] == tid
        out, back = off["ts_ns"][mine], off["ts_ns"][mine] + off["dur_ns"][mine]
        state, nr = off["state"][mine], off["nr"][mine]
        woken = out + off["wake_ns"][mine]
        woken = np.where((state == 0) | (off["flags"][mine] & _WOKEN_EARLY != 0), out, woken)
        # never woken before it came back: it was not asleep, or the record is open
        woken = np.where(
            (state != 0) & (off["wake_ns"][mine] == 0) & (off["flags"][mine] & _WOKEN_EARLY == 0),
            back,
            woken,
        )
        waiting = np.isin(nr, _EPOLL)
        ours = runs.tid == tid
        begin, end = runs.begin[ours], runs.end[ours]
        spans = (
            (out[waiting], woken[waiting]),
            (out[~waiting], woken[~waiting]),
            (woken, back),
            (begin, end),
        )
        self._edges = np.unique(np.concatenate([np.concatenate(s) for s in spans]))
        depth = []
        for starts, ends in spans:
            delta = np.zeros(len(self._edges) + 1, np.int64)
            np.add.at(delta, np.searchsorted(self._edges, starts), 1)
            np.add.at(delta, np.searchsorted(self._edges, ends), -1)
            depth.append(np.cumsum(delta)[:-1] > 0)
        cause = np.where(depth[3], BUSY, LOOP)
        cause = np.where(depth[0], LOOP, cause)
        cause = np.where(depth[1], SYSCALL, cause)
        self._cause = np.where(depth[2], RUNQ, cause)
        lengths = np.diff(self._edges, append=self._edges[-1:])
        self._total = [
            np.concatenate([[0], np.cumsum(np.where(self._cause == c, lengths, 0))]).astype(
                np.int64
            )
            for c in range(4)
        ]

    def until(self, when: Ints, cause: int) -> Ints:
        """Return the time spent for a cause from the beginning to each moment."""
        if not len(self._edges):
            return when if cause == LOOP else np.zeros_like(when)
        at = np.searchsorted(self._edges, when, side="right") - 1
        inside = at >= 0
        held = np.maximum(at, 0)
        here = np.where(inside, self._cause[held], LOOP)
        since = np.where(inside, when - self._edges[held], when - self._edges[0])
        spent: Ints = np.where(inside, self._total[cause][held], 0) + since * (here == cause)
        return spent

    def between(self, start: Ints, end: Ints, cause: int) -> Ints:
        """Return the time spent for a cause in each interval, ns."""
        return self.until(end, cause) - self.until(start, cause)

    def on_cpu(self, start: Ints, end: Ints) -> Ints:
        """Return the on-CPU time in runs, the loop's own work excluded, ns."""
        return self.between(start, end, BUSY)


def split(
    events: Events, runs: Runs, tid: Ints, intervals: list[tuple[Ints, Ints]], own: Ints
) -> dict[str, Ints]:
    """Split intervals of loop threads by cause.

    Args:
        events: for the off_cpu table.
        runs: all runs.
        tid: loop thread of each row; rows without one stay 0.
        intervals: pairs of (start, end), each of the rows' length; empty ones have start = end.
        own: the run that is the row's own work (its callback), -1 for none.

    Returns:
        loop_busy_ns, runq_ns, syscall_ns, loop_ns: they sum to the intervals.

    """
    names = {"loop_busy_ns": BUSY, "runq_ns": RUNQ, "syscall_ns": SYSCALL, "loop_ns": LOOP}
    parts = {name: np.zeros(len(tid), np.int64) for name in names}
    for thread in np.unique(tid[tid > 0]).tolist():
        rows = np.flatnonzero(tid == thread)
        time = ThreadTime(thread, events["off_cpu"], runs)
        for start, end in intervals:
            for name, cause in names.items():
                parts[name][rows] += time.between(start[rows], end[rows], cause)
            mine = own[rows] >= 0
            held = np.maximum(own[rows], 0)
            lo = np.where(
                mine, np.maximum(start[rows], runs.begin[held] if len(runs.begin) else 0), 0
            )
            hi = np.where(mine, np.minimum(end[rows], runs.end[held] if len(runs.end) else 0), 0)
            self_ns = time.between(np.minimum(lo, hi), hi, BUSY)
            parts["loop_busy_ns"][rows] -= self_ns
            parts["loop_ns"][rows] += self_ns
    return parts
