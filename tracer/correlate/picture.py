"""What the passes of one correlation share, each filled in by the pass before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tracer.correlate.events import runs_of
from tracer.correlate.receipts import receipts_of
from tracer.correlate.sockets import Streams, sockets_of
from tracer.correlate.tasks import Tasks, suspensions_of
from tracer.correlate.wakes import calls_of, wakes_of

if TYPE_CHECKING:
    from tracer.correlate.events import Events, Runs
    from tracer.correlate.receipts import Receipts
    from tracer.correlate.sockets import Socket
    from tracer.correlate.tasks import Suspensions
    from tracer.correlate.wakes import Calls, Wakes


@dataclass(frozen=True)
class Picture:
    """A trace's events with their runs, tasks, suspensions, calls, wakes, bytes and sockets."""

    events: Events
    runs: Runs
    tasks: Tasks
    sus: Suspensions
    calls: Calls
    wakes: Wakes
    receipts: Receipts
    sockets: dict[int, Socket]
    streams: Streams


def picture_of(events: Events) -> Picture:
    """Run the passes that do not depend on cut points."""
    runs = runs_of(events)
    tasks = Tasks(events)
    sus = suspensions_of(events, runs, tasks)
    calls = calls_of(events, runs, tasks)
    wakes = wakes_of(events, runs, calls, sus, tasks)
    receipts = receipts_of(events, runs, calls, sus, wakes)
    sockets = sockets_of(events)
    streams = Streams(events, sockets)
    return Picture(events, runs, tasks, sus, calls, wakes, receipts, sockets, streams)
