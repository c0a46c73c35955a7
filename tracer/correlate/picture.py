"""What the passes of one correlation share, each filled in by the pass before."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from tracer.correlate.calls import calls_of
from tracer.correlate.errands import with_errands
from tracer.correlate.events import runs_of
from tracer.correlate.gaps import woke_unknown
from tracer.correlate.index import Keys, lean, spans, take
from tracer.correlate.lag import Threads
from tracer.correlate.lookups import Lookups
from tracer.correlate.native import with_native
from tracer.correlate.receipts import receipts_of
from tracer.correlate.sockets import Streams, sockets_of
from tracer.correlate.tasks import Tasks, suspensions_of
from tracer.correlate.wakes import wakes_of

if TYPE_CHECKING:
    from tracer.correlate.calls import Calls
    from tracer.correlate.events import Events, Runs
    from tracer.correlate.index import Ints
    from tracer.correlate.receipts import Receipts
    from tracer.correlate.sockets import Socket
    from tracer.correlate.tasks import Suspensions
    from tracer.correlate.wakes import Wakes


@dataclass(frozen=True)
class Picture:
    """A trace's events with their runs, tasks, suspensions, calls, wakes, bytes and sockets.

    `awaits` numbers the awaits that are in `sus`; `owned` are the calls that moved bytes in their
    steps, by the number of the await (`owner`, sorted); `woke_unknown` see gaps.py.
    """

    events: Events
    runs: Runs
    tasks: Tasks
    sus: Suspensions
    calls: Calls
    wakes: Wakes
    receipts: Receipts
    sockets: dict[int, Socket]
    streams: Streams
    look: Lookups
    threads: Threads
    awaits: Ints
    owned: Ints
    owner: Ints
    woke_unknown: Ints

    def of_awaits(self, groups: Ints) -> Picture:
        """Return the picture of some awaits, in the given order; all else stays whole."""
        rows = spans(
            np.searchsorted(self.sus.group, groups, side="left"),
            np.searchsorted(self.sus.group, groups, side="right"),
        )
        return replace(
            self,
            awaits=groups,
            sus=self.sus.of_rows(rows),
            wakes=self.wakes.of_rows(rows),
            receipts=self.receipts.of_rows(rows),
        )

    def calls_of_awaits(self) -> tuple[Ints, Ints]:
        """Return the calls that moved bytes in an await's steps, and the group of each."""
        first = np.searchsorted(self.owner, self.awaits, side="left")
        last = np.searchsorted(self.owner, self.awaits, side="right")
        group = np.repeat(np.arange(len(self.awaits)), last - first)
        return self.owned[spans(first, last)], group


def picture_of(events: Events) -> Picture:
    """Run the passes that do not depend on cut points."""
    runs = with_native(events, runs_of(events))
    events["callback"].forget()
    tasks = Tasks(events)
    sus = suspensions_of(events, runs, tasks)
    calls = calls_of(events, runs, tasks)
    events["syscall"].forget("task", "flags")
    wakes = wakes_of(events, runs, calls, sus, tasks)
    events["callback"].forget()
    calls = with_errands(events, runs, calls, sus, wakes, tasks)
    receipts = receipts_of(events, runs, calls, sus, wakes)
    sockets = sockets_of(events)
    moved = np.concatenate([calls.sends.row, calls.recvs])
    mover = np.concatenate([calls.sends.run, calls.run[calls.recvs]])
    owner = take(sus.group, Keys(sus.run).find(mover))
    order = np.argsort(owner, kind="stable")[np.count_nonzero(owner < 0) :]
    streams = Streams(events, sockets)
    for table in ("transmit", "step", "socket"):
        events[table].forget()
    events["syscall"].forget("nr", "seq", "flags")
    return Picture(
        events,
        runs,
        tasks,
        sus,
        calls,
        wakes,
        receipts,
        sockets,
        streams,
        Lookups(events, runs, calls),
        Threads(events, runs),
        awaits=np.arange(sus.groups),
        owned=lean(moved[order]),
        owner=lean(owner[order]),
        woke_unknown=woke_unknown(events, sus, wakes),
    )
