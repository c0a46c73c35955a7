"""Cut points and stages.

A leg is one trip of an await: from the step that sent (or just parked) to the step that went on.
Several suspensions are one leg where an answer came in several receives without a new send.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from tracer.correlate import reasons
from tracer.correlate.index import Bools, Ints, take
from tracer.correlate.sockets import is_pipe
from tracer.correlate.wakes import (
    BY_ACCEPT,
    BY_CALLBACK,
    BY_CONNECT,
    BY_NOTHING,
    BY_RECV,
    BY_SIGNAL,
    BY_THREAD,
    BY_TIMER,
    BY_WRITE,
)

if TYPE_CHECKING:
    from tracer.correlate.events import Table
    from tracer.correlate.picture import Picture

UNKNOWN = -1


@dataclass
class Legs:
    """All legs, in the order of their suspensions.

    `cuts` is t0..t8 (ns, UNKNOWN where not recorded), `stages` the eight durations (UNKNOWN
    likewise). `wait` is the loop's wait (Waits) that ended at t5; `rows` names the proving rows of
    the event tables; -1 for none.
    """

    group: Ints
    first: Ints
    last: Ints
    by: Ints
    sock: Ints
    tid: Ints
    parked: Ints
    cuts: list[Ints]
    stages: list[Ints]
    reasons: Ints
    own_run: Ints
    wait: Ints
    rows: dict[str, Ints] = field(default_factory=dict)


class _Cutter:
    """The inputs, and the look-ups that several cuts share."""

    def __init__(self, p: Picture) -> None:
        events, calls = p.events, p.calls
        self.events, self.runs, self.calls = events, p.runs, calls
        self.sus, self.wakes, self.receipts, self.streams = p.sus, p.wakes, p.receipts, p.streams
        self.call, self.look = events["syscall"], p.look


def legs_of(p: Picture) -> Legs:
    """Cut every await."""
    cutter, sus, wakes = _Cutter(p), p.sus, p.wakes
    # the socket that a suspension is about, known only at its end
    sends_here = cutter.look.first_send(sus.run, wakes.sock)
    merged = np.zeros(sus.count, bool)
    if sus.count:
        merged[1:] = (
            (sus.group[1:] == sus.group[:-1])
            & (wakes.by[1:] == BY_RECV)
            & (wakes.by[:-1] == BY_RECV)
            & (wakes.sock[1:] == wakes.sock[:-1])
            & (sends_here[1:] < 0)
        )
    first = np.flatnonzero(~merged)
    last = np.append(first[1:] - 1, sus.count - 1) if len(first) else first
    return _cut(cutter, first.astype(np.int64), last.astype(np.int64))


def _cut(c: _Cutter, first: Ints, last: Ints) -> Legs:
    sus, runs, call = c.sus, c.runs, c.call
    by, sock = c.wakes.by[last], c.wakes.sock[last]
    n = len(first)
    bits = np.zeros(n, np.int64)
    woken_call = c.wakes.call[last]
    sends, piece = c.calls.sends, c.look.first_send(sus.run[first], sock)
    send = take(sends.row, piece)
    last_send = take(sends.row, c.look.last_send(sus.run[first], sock))
    is_connect = by == BY_CONNECT
    send = np.where(is_connect, woken_call, send)
    last_send = np.where(is_connect, woken_call, last_send)
    parked = sus.parked[first]
    t0, t8 = sus.begin[first], sus.resume[last]
    t1 = np.where(send >= 0, take(call["ts_ns"], send), parked)
    sent_end = take(call["ts_ns"], last_send) + take(call["dur_ns"], last_send)
    t2 = np.where(send >= 0, np.maximum(sent_end, parked), parked)
    t1, t2 = np.minimum(t1, t8), np.minimum(t2, t8)
    kept = c.receipts.kept[first] | c.receipts.kept[last]
    bits[(send < 0) & ~kept & np.isin(by, (BY_RECV, BY_ACCEPT))] |= reasons.bit("no_send")

    in_task = c.wakes.in_task[last]
    t7 = np.where(in_task, t8, sus.wake[last])
    has_call = np.isin(by, (BY_RECV, BY_WRITE, BY_ACCEPT)) & (woken_call >= 0)
    t6 = np.where(has_call & ~in_task, take(call["ts_ns"], woken_call), t7)
    t7 = np.where(by == BY_WRITE, t6, t7)
    t3, t4, rows, more = _arrival(c, first, last)
    bits |= more

    polled = np.isin(
        by,
        (BY_RECV, BY_WRITE, BY_ACCEPT, BY_CONNECT, BY_TIMER, BY_THREAD, BY_SIGNAL, BY_CALLBACK),
    )
    root, link = c.wakes.began[last], c.wakes.link[last]
    began = np.where(root >= 0, take(runs.begin, root), t6)
    wait = np.where(polled, c.look.waits.by_end.before(sus.tid[last], np.minimum(began, t6)), -1)
    t5 = take(c.look.waits.end, wait, UNKNOWN)
    # another step was the cause; what it put on the ready queue made the task ready in its turn
    instant = ~polled & (by != BY_NOTHING)
    t3, t4, t5 = (np.where(instant, c.wakes.root_ns[last], t) for t in (t3, t4, t5))
    t6 = np.where(instant & (link >= 0), take(runs.begin, link), t6)
    is_open = by == BY_NOTHING
    cuts = [t0, t1, t2] + [np.where(is_open, UNKNOWN, t) for t in (t3, t4, t5, t6, t7)] + [t8]
    early = np.zeros(n, bool)
    for k in (3, 4, 5):
        early |= polled & (cuts[k] != UNKNOWN) & (cuts[k] < cuts[2])
    bits[early] |= reasons.bit("answer_before_suspend")
    bits[is_open] |= reasons.bit("trace_ended")
    bits[in_task] |= reasons.bit("read_in_task")
    sender = np.where(is_connect, 0, take(sends.task, piece, 0))
    bits[(sender > 0) & (sender != sus.task[first])] |= reasons.bit("sent_by_child")
    bits[c.receipts.guessed[first] | c.receipts.guessed[last]] |= reasons.bit("last_sender")
    bits[c.receipts.shared[last] > 1] |= reasons.bit("recv_shared")
    bits[c.receipts.send_shared[first] | c.receipts.send_shared[last]] |= reasons.bit("send_shared")
    bits[kept] |= reasons.bit("buffered_write")
    cuts = _ordered(cuts)
    rows |= {
        "step_id": sus.step[first],
        "next_step_id": sus.next_step[last],
        "send_id": send,
        "last_send_id": last_send,
        "call_id": woken_call,
        "callback_id": take(runs.callback, root),
        "work_id": np.where(by == BY_THREAD, c.wakes.work[last], -1),
        "waker_step_id": take(runs.step, c.wakes.root[last]),
    }
    return Legs(
        group=sus.group[first],
        first=first,
        last=last,
        by=by,
        sock=sock,
        tid=sus.tid[last],
        parked=parked,
        cuts=cuts,
        stages=_stages(cuts),
        reasons=bits,
        own_run=np.where(polled, root, -1),
        wait=wait,
        rows=rows,
    )


def _arrival(c: _Cutter, first: Ints, last: Ints) -> tuple[Ints, Ints, dict[str, Ints], Ints]:
    """Return t3, t4, the rows of `receive` that prove them, and reasons."""
    by, sock, woken_call = c.wakes.by[last], c.wakes.sock[last], c.wakes.call[last]
    rx, state = c.events["receive"], c.events["socket_state"]
    n = len(first)
    bits = np.zeros(n, np.int64)
    is_recv = by == BY_RECV
    stream = c.streams.in_stream(sock)
    first_recv = np.where(is_recv, c.receipts.first_recv[first], -1)
    first_pos = take(c.streams.call_pos, first_recv)
    pos = take(c.streams.call_pos, np.where(is_recv, woken_call, -1))
    rx_first = c.streams.rx_at(stream, first_pos)
    rx_last = c.streams.rx_at(stream, pos)
    # not TCP, or an accept: the readiness before the call, after the previous one
    when = take(c.call["ts_ns"], woken_call, 0)
    plain = (is_recv & (pos < 0)) | (by == BY_ACCEPT)
    prior = c.look.recv_before(sock, when)
    since = np.where(by == BY_ACCEPT, c.sus.begin[first], take(c.call["ts_ns"], prior, 0))
    watched = np.where(by == BY_ACCEPT, c.look.listener(woken_call), sock)
    earliest = c.look.readiness.after(watched, since, strict=True)
    fits = plain & (earliest >= 0) & (take(rx["ts_ns"], earliest) <= when)
    rx_last = np.where(fits, earliest, rx_last)
    rx_first = np.where(fits, earliest, rx_first)
    t4 = np.where(rx_last >= 0, take(rx["ts_ns"], rx_last), UNKNOWN)
    t3 = np.where(rx_first >= 0, arrival_ns(rx, rx_first), UNKNOWN)
    # connect: the SYN-ACK brings ESTABLISHED; the end of a stream: the FIN brings CLOSE_WAIT
    ended = is_recv & (take(c.call["ret"], woken_call) == 0)
    established = np.where(
        by == BY_CONNECT,
        c.look.established.after(sock, when),
        np.where(ended, c.look.half_closed.before(sock, when), -1),
    )
    t4 = np.where(established >= 0, take(state["ts_ns"], established), t4)
    t3 = np.where(established >= 0, arrival_ns(state, established), t3)
    # timer: the deadline; thread and signal handler: their write to the self-pipe
    cause = c.wakes.root[last]
    set_ns = take(c.runs.wake, cause)
    written = c.look.pipe_write(take(c.runs.wake_tid, cause), set_ns)
    set_ns = np.where((by == BY_THREAD) & (written > 0), written, set_ns)
    is_signal = by == BY_SIGNAL
    set_ns[is_signal] = c.look.signal_write(
        take(c.runs.agent, cause[is_signal]), c.wakes.root_ns[last][is_signal]
    )
    late = np.isin(by, (BY_TIMER, BY_THREAD, BY_SIGNAL)) & (set_ns > 0)
    t3, t4 = (np.where(late, set_ns, t) for t in (t3, t4))
    level = int(c.events.manifest["level"])
    # the SYN-ACK found the socket locked by connect itself
    locked = (by == BY_CONNECT) & (established >= 0) & (t3 == UNKNOWN) & (level >= 3)
    bits[locked] |= reasons.bit("backlog")
    piped = is_recv & is_pipe(sock)
    bits[piped] |= reasons.bit("pipe")
    is_recv &= ~piped
    missing = is_recv & (rx_last < 0) & (established < 0)
    bits[missing] |= reasons.bit("not_recorded_at_this_level" if level < 2 else "no_packet_event")
    if level < 3:
        bits[is_recv] |= reasons.bit("not_recorded_at_this_level")
    rows = {
        "first_recv_id": first_recv,
        "rx_first_id": rx_first,
        "rx_id": rx_last,
        "state_id": established,
    }
    return t3, t4, rows, bits


def arrival_ns(table: Table, rows: Ints) -> Ints:
    """Return when a packet reached this host: its interrupt, else softirq, else driver hand-over.

    UNKNOWN where none of them was recorded.
    """
    ages = [take(table[c], rows, 0) for c in ("irq_age_ns", "softirq_age_ns", "rx_age_ns")]
    age = np.where(ages[0] > 0, ages[0], np.where(ages[1] > 0, ages[1], ages[2]))
    return np.where((rows >= 0) & (age > 0), take(table["ts_ns"], rows) - age, UNKNOWN)


def _ordered(cuts: list[Ints]) -> list[Ints]:
    """Force t0 <= t1 <= ... <= t8 over the known cuts: late ones yield to earlier-known ends."""
    known = [c != UNKNOWN for c in cuts]
    cuts = [c.copy() for c in cuts]
    limit = cuts[8]
    for k in range(7, 2, -1):
        cuts[k] = np.where(known[k], np.minimum(cuts[k], limit), UNKNOWN)
        limit = np.where(known[k] & (k >= 5), cuts[k], limit)
    floor = cuts[0]
    for k in range(1, 9):
        cuts[k] = np.where(known[k], np.maximum(cuts[k], floor), UNKNOWN)
        floor = np.where(known[k], cuts[k], floor)
    return cuts


def _stages(cuts: list[Ints]) -> list[Ints]:
    """Return the eight durations; an unknown cut makes its stage UNKNOWN."""
    stages: list[Ints] = []
    end = cuts[8]
    for k in range(7, -1, -1):
        known: Bools = cuts[k] != UNKNOWN
        stages.append(np.where(known, end - cuts[k], UNKNOWN))
        end = np.where(known, cuts[k], end)
    return stages[::-1]
