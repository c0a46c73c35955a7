"""Indices of the whole trace that several passes look things up in, each made when first needed."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from tracer.correlate.index import Index, Ints, distinct, ints, take
from tracer.correlate.waits import Waits
from tracer.system import syscalls

if TYPE_CHECKING:
    from tracer.correlate.calls import Calls
    from tracer.correlate.events import Events, Runs

# include/net/tcp_states.h
ESTABLISHED, CLOSE_WAIT = 1, 8


class Lookups:
    """Event rows by thread, socket or run, and time."""

    def __init__(self, events: Events, runs: Runs, calls: Calls) -> None:
        """Name the trace; nothing is indexed yet."""
        self._events, self._runs, self._calls = events, runs, calls
        self._call = events["syscall"]

    @cached_property
    def waits(self) -> Waits:
        """Return when loops waited."""
        return Waits(self._events, self._runs, self._calls)

    @cached_property
    def off_cpu(self) -> Index:
        """Find a switch-out by thread and time."""
        off = self._events["off_cpu"]
        return Index(off["tid"], off["ts_ns"])

    @cached_property
    def readiness(self) -> Index:
        """Find a row of `receive` by socket and time."""
        rx = self._events["receive"]
        return Index(rx["sock"], rx["ts_ns"])

    @cached_property
    def _polls(self) -> Index:
        poll = self._events["napi_poll"]
        return Index(poll["cpu"], poll["ts_ns"])

    def poll_of(self, received: Ints) -> Ints:
        """Return the NAPI poll that brought each packet of `receive`: it ends in its softirq."""
        rx = self._events["receive"]
        when, age = take(rx["ts_ns"], received, 0), take(rx["softirq_age_ns"], received, 0)
        poll = self._polls.after(take(rx["cpu"], received), when)
        begun = take(self._events["napi_poll"]["softirq_ns"], poll)
        return np.where((age > 0) & (begun == when - age), poll, -1)

    @cached_property
    def _told(self) -> Index:
        told = self._events["epoll_callback"]
        return Index(told["sock"], told["ts_ns"])

    def epoll_told(self, sock: Ints, since: Ints, until: Ints) -> Ints:
        """Return the first row of `epoll_callback` of a socket between two moments."""
        found = self._told.after(sock, since)
        late = take(self._events["epoll_callback"]["ts_ns"], found, 0) > until
        return np.where((since > 0) & ~late, found, -1)

    @cached_property
    def _sent(self) -> Index:
        sent = self._events["tx_interrupt"]
        return Index(sent["ifindex"], sent["ts_ns"])

    def sent_interrupt(self, transmitted: Ints, until: Ints) -> Ints:
        """Return the row of `tx_interrupt` that first covers each packet of `transmit`."""
        tx, sent = self._events["transmit"], self._events["tx_interrupt"]
        when = take(tx["ts_ns"], transmitted, 1 << 62)
        found = self._sent.after(take(tx["ifindex"], transmitted), when)
        covers = (
            (take(sent["netns"], found) == take(tx["netns"], transmitted))
            & (take(sent["since_ns"], found) <= when)
            & (take(sent["ts_ns"], found, 1 << 62) <= until)
        )
        return np.where((transmitted >= 0) & covers, found, -1)

    @cached_property
    def _recvs(self) -> Index:
        return self._of_calls(self._events.recvs, "sock")

    def recv_before(self, sock: Ints, when: Ints) -> Ints:
        """Return the last receive on a socket before a moment."""
        return take(self._events.recvs, self._recvs.before(sock, when, strict=True))

    @cached_property
    def _pipe_writes(self) -> tuple[Ints, Index]:
        sends = self._events.sends
        rows = sends[self._calls.self_pipe[sends]]
        return rows, self._of_calls(rows, "tid")

    def pipe_write(self, tid: Ints, since: Ints) -> Ints:
        """Return when a thread next wrote to an event loop's self-pipe, -1 if it did not."""
        rows, index = self._pipe_writes
        return take(self._call["ts_ns"], take(rows, index.after(tid, since)))

    @cached_property
    def _signal_writes(self) -> tuple[Ints, Index]:
        rows, _index = self._pipe_writes
        rows = rows[self._call["nr"][rows] == syscalls.NUMBER["write"]]
        return rows, Index(self._calls.agent[rows], self._call["ts_ns"][rows])

    def signal_write(self, agent: Ints, when: Ints) -> Ints:
        """Return when the interpreter's signal handler last wrote to the self-pipe, -1 for never.

        It calls write(2), in whichever thread the signal hit; asyncio itself calls send(2).
        """
        rows, index = self._signal_writes
        return take(self._call["ts_ns"], take(rows, index.before(agent, when)))

    @cached_property
    def _watches(self) -> Index:
        ctl = self._events["epoll_ctl"]
        return Index(ints(ctl["tid"]) << 32 | ctl["fd"], ctl["ts_ns"])

    def listener(self, accept: Ints) -> Ints:
        """Return the socket that an accept was called on; the call itself names the new one."""
        call = self._call
        key = take(call["tid"], accept) << 32 | take(call["fd"], accept)
        found = self._watches.before(key, take(call["ts_ns"], accept))
        return take(self._events["epoll_ctl"]["sock"], found)

    @cached_property
    def _closes(self) -> tuple[Ints, Index]:
        call = self._call
        rows = np.flatnonzero((call["nr"] == syscalls.NUMBER["close"]) & (call["sock"] > 0))
        return rows, self._of_calls(rows, "sock")

    def close_after(self, sock: Ints, when: Ints) -> Ints:
        """Return the call that next closes a socket."""
        rows, index = self._closes
        return take(rows, index.after(sock, when))

    def _of_calls(self, rows: Ints, group: str) -> Index:
        return Index(self._call[group][rows], self._call["ts_ns"][rows])

    @cached_property
    def established(self) -> Index:
        """Find a row of `socket_state` by socket and time, where it became ESTABLISHED."""
        return self._states(ESTABLISHED)

    @cached_property
    def half_closed(self) -> Index:
        """Find a row of `socket_state` by socket and time, where the peer's FIN came."""
        return self._states(CLOSE_WAIT)

    def _states(self, new: int) -> Index:
        state = self._events["socket_state"]
        return Index(np.where(state["newstate"] == new, state["sock"], -1), state["ts_ns"])

    @cached_property
    def _socks(self) -> Ints:
        return distinct(self._call["sock"][self._calls.sends.row])

    def _run_sock(self, run: Ints, sock: Ints) -> Ints:
        """Return one number for (run, socket), -1 for one without sends."""
        at = np.searchsorted(self._socks, sock)
        found = take(self._socks, np.where(at < len(self._socks), at, -1)) == sock
        return np.where(found & (run >= 0), ints(run) * (len(self._socks) + 1) + at, -1)

    @cached_property
    def _sends(self) -> Index:
        """Find what a run sent on a socket, at the latest when the loop's iteration ended."""
        sends, call = self._calls.sends, self._call
        key = self._run_sock(sends.run, call["sock"][sends.row])
        kept = np.flatnonzero(sends.kept)
        row = sends.row[kept]
        waited = self.waits.by_begin.after(call["tid"][row], sends.written_ns[kept])
        late = call["ts_ns"][row] > take(self.waits.begin, waited, 1 << 62)
        key[kept[late]] = -1
        return Index(key, call["ts_ns"][sends.row])

    def first_send(self, run: Ints, sock: Ints) -> Ints:
        """Return the first of `sends` on a socket that a run wrote."""
        key = self._run_sock(run, sock)
        found = self._sends.after(key, np.zeros(len(run), np.int64))
        return np.where((key >= 0) & (sock > 0), found, -1)

    def last_send(self, run: Ints, sock: Ints) -> Ints:
        """Return the last of `sends` on a socket that a run wrote."""
        key = self._run_sock(run, sock)
        found = self._sends.before(key, np.full(len(run), 1 << 62, np.int64))
        return np.where((key >= 0) & (sock > 0), found, -1)
