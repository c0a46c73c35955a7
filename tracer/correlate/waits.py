"""When event loops waited: their epoll_wait calls, and what a loop on another selector calls.

asyncio on a PollSelector or a SelectSelector has no epoll_wait: its loop waits in poll or select.
A thread may call these for itself, too. The loop's own lie outside of what the loop runs, or, for a
loop that runs inside another one's callback (nest_asyncio), right before a run of the inner one.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from tracer.correlate.events import EAGER
from tracer.correlate.index import Index, distinct, ints, lean, take
from tracer.system import syscalls

if TYPE_CHECKING:
    from tracer.correlate.calls import Calls
    from tracer.correlate.events import Events, Runs
    from tracer.correlate.index import Ints


class Waits:
    """Every wait of a loop's thread, in order of its begin.

    `epoll` is its row of `epoll_wait`, `poll` its row of `syscall`, -1 for the other. Times in ns.
    """

    def __init__(self, events: Events, runs: Runs, calls: Calls) -> None:
        """Find them."""
        wait, call = events["epoll_wait"], events["syscall"]
        polls = _of_loops(events, runs, calls)
        count = len(wait["ts_ns"])
        begin = np.concatenate([wait["ts_ns"], call["ts_ns"][polls]])
        order = np.argsort(begin, kind="stable")
        took = np.concatenate([wait["dur_ns"], call["dur_ns"][polls]])
        self.tid = lean(np.concatenate([wait["tid"], call["tid"][polls]])[order])
        self.begin = begin[order]
        self.end = (begin + took)[order]
        self.epoll = lean(np.where(order < count, order, -1))
        self.poll = lean(take(polls, np.where(order >= count, order - count, -1)))

    @cached_property
    def by_begin(self) -> Index:
        """Find a wait by thread and begin."""
        return Index(self.tid, self.begin)

    @cached_property
    def by_end(self) -> Index:
        """Find a wait by thread and end."""
        return Index(self.tid, self.end)


def _of_loops(events: Events, runs: Runs, calls: Calls) -> Ints:
    """Return the rows of `syscall` that are a loop's poll or select."""
    call = events["syscall"]
    polls = np.flatnonzero(np.isin(call["nr"], list(syscalls.POLLS)))
    polls = polls[np.isin(call["tid"][polls], distinct(ints(runs.tid)))]
    around = calls.run[polls]
    ended = call["ts_ns"][polls] + call["dur_ns"][polls]
    following = Index(runs.tid, runs.begin).after(call["tid"][polls], ended)
    inner = take(runs.begin, following, np.iinfo(np.int64).max) < take(runs.end, around)
    inner &= take(runs.flags & EAGER, following, EAGER) == 0
    return ints(polls[(around < 0) | inner])
