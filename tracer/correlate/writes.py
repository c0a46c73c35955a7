"""Whose the bytes of each send are, also where a stream had kept them back.

uvloop's streams keep bytes in a queue: before 0.23 all of them, up to the end of the loop's
iteration, later only what the socket had no room for. The agent tells each write that left bytes
there, with the queue's length around it. Bytes leave a queue in the order in which they came: a
write's first byte was as many behind the last one sent by then as the queue was long. So each write
says by itself where on its stream its bytes lie, and one that was lost leaves no others wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tracer.correlate.gaps import touched
from tracer.correlate.index import Bools, Index, Ints, lean, spans, sum_by, take
from tracer.system import syscalls

if TYPE_CHECKING:
    from tracer.correlate.calls import Owners
    from tracer.correlate.events import Events

_NEVER = np.iinfo(np.int64).max


@dataclass
class Sends:
    """What was sent on sockets other than loops' self-pipes: a row of `syscall`, or pieces of it.

    A piece has the `run` and the task (-1, 0: none) that wrote its bytes, and when. `kept` are
    those that a stream had kept back; each other one was sent by whom the call is.
    """

    row: Ints
    run: Ints
    task: Ints
    bytes: Ints
    written_ns: Ints
    kept: Bools

    def shared(self) -> Bools:
        """Say which pieces were sent together with another task's or callback's."""
        who = np.where(self.task > 0, self.task, -1 - self.run.astype(np.int64))
        apart = np.zeros(len(who), bool)
        apart[1:] = (self.row[1:] == self.row[:-1]) & (who[1:] != who[:-1])
        return np.isin(self.row, self.row[apart])


class Owned(NamedTuple):
    """Whose some moments on threads are: the agent (-1: none), the run (-1) and the task (0)."""

    agent: Ints
    run: Ints
    task: Ints


def sends_of(events: Events, rows: Ints, called: Owned, owners: Owners) -> Sends:
    """Return what was sent by the calls in `rows`.

    Args:
        events: the trace.
        rows: rows of `syscall`, in order of time.
        called: whose the rows of `syscall` are.
        owners: whose anything is.

    """
    call, write = events["syscall"], events["stream_write"]
    which, of, size = _carried(events, rows, called.agent)
    left = call["ret"][rows] - sum_by(of, size, len(rows))
    rest = np.flatnonzero(left > 0)
    wrote = owners.of(write["tid"], write["ts_ns"], write["agent"], write["task"])
    at = np.concatenate([of, rest])
    order = np.argsort(at, kind="stable")
    at = at[order]

    def joined(of_writes: Ints, of_calls: Ints) -> Ints:
        return np.concatenate([of_writes[which], of_calls[rows[rest]]])[order]

    return Sends(
        row=lean(rows[at]),
        run=lean(joined(wrote.run, called.run)),
        task=lean(joined(wrote.task, called.task)),
        bytes=lean(np.concatenate([size, left[rest]])[order]),
        written_ns=joined(write["ts_ns"], call["ts_ns"]),
        kept=order < len(which),
    )


def _carried(events: Events, rows: Ints, agent: Ints) -> tuple[Ints, Ints, Ints]:
    """Return which rows of `stream_write` which of the sends carried, and how many bytes of it."""
    call, write = events["syscall"], events["stream_write"]
    none = np.zeros(0, np.int64)
    if not len(write):
        return none, none, none
    order = np.lexsort((call["ts_ns"][rows], call["sock"][rows]))
    sock, when = call["sock"][rows][order], call["ts_ns"][rows][order]
    # where each send's bytes lie, on all streams one behind the other
    end = np.cumsum(call["ret"][rows][order], dtype=np.int64)
    begin = end - call["ret"][rows][order]
    on = _socket_of(events, rows, agent)
    first = np.searchsorted(sock, on)
    last = np.searchsorted(sock, on, side="right") - 1
    known = np.flatnonzero((on > 0) & (last >= first))
    on, first, last = on[known], first[known], last[known]
    index = Index(sock, when)

    def sent_before(ts: Ints) -> Ints:
        return np.where((at := index.before(on, ts, strict=True)) >= 0, take(end, at), begin[first])

    from_byte = sent_before(write["ts_ns"][known]) + write["before_bytes"][known]
    to_byte = sent_before(write["end_ns"][known]) + write["after_bytes"][known]
    to_byte = np.minimum(to_byte, end[last])
    # a write that was made inside another one has its own bytes
    by_time = np.lexsort((write["ts_ns"][known], on))
    inner = np.flatnonzero(
        (on[by_time][1:] == on[by_time][:-1])
        & (write["ts_ns"][known][by_time][1:] < write["end_ns"][known][by_time][:-1])
    )
    outer, first_inner = by_time[inner], by_time[inner + 1]
    to_byte[outer] = np.minimum(to_byte[outer], from_byte[first_inner])
    starts = np.searchsorted(end, from_byte, side="right")
    ends = np.searchsorted(begin, to_byte)
    at = spans(starts, ends)
    which = np.repeat(np.arange(len(known)), np.maximum(ends - starts, 0))
    size = np.minimum(end[at], to_byte[which]) - np.maximum(begin[at], from_byte[which])
    # what was lost in between may have been sent before it
    whole = ~touched(events, write["ts_ns"][known][which], when[at])
    return known[which[whole]], order[at[whole]], size[whole]


def _socket_of(events: Events, rows: Ints, agent: Ints) -> Ints:
    """Return the socket on which each row of `stream_write` was sent, 0 for none."""
    call, write = events["syscall"], events["stream_write"]
    closes = np.flatnonzero((call["nr"] == syscalls.NUMBER["close"]) & (call["fd"] >= 0))

    def next_of(which: Ints) -> Ints:
        key = agent[which].astype(np.int64) << 32 | call["fd"][which]
        index = Index(key, call["ts_ns"][which])
        return take(which, index.after(write["agent"] << 32 | write["fd"], write["ts_ns"]))

    sent = next_of(rows)
    closed = take(call["ts_ns"], next_of(closes), _NEVER)
    return np.where(take(call["ts_ns"], sent, _NEVER) < closed, take(call["sock"], sent, 0), 0)
