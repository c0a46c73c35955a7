"""The rows that prove each step of each leg: packets, and the peer's own calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tracer.correlate.anatomy import STEPS
from tracer.correlate.index import Ints, take
from tracer.system import syscalls

if TYPE_CHECKING:
    from tracer.correlate.legs import Legs
    from tracer.correlate.picture import Picture


def add_evidence(p: Picture, legs: Legs) -> Ints:
    """Add the packets' and the peer's rows to `legs.rows`; return observed steps per leg."""
    events, streams = p.events, p.streams
    call, off, waits = events["syscall"], events["off_cpu"], p.look.waits
    rows = legs.rows
    out, back = streams.out_stream(legs.sock), streams.in_stream(legs.sock)
    asked = take(streams.call_pos, rows["send_id"])
    last = rows["last_send_id"]
    asked_end = np.where(last >= 0, take(streams.call_pos, last) + take(call["ret"], last) - 1, -1)
    connect = take(call["nr"], rows["send_id"]) == syscalls.NUMBER["connect"]
    asked, asked_end = (np.where(connect, -1, p) for p in (asked, asked_end))
    first_rx = rows["rx_first_id"]
    answer = np.where(first_rx >= 0, take(streams.call_pos, rows["first_recv_id"]), -1)
    rx = events["receive"]
    rows["rx_packet_id"] = np.where(take(rx["rx_age_ns"], first_rx, 0) > 0, first_rx, -1)
    rows["tx_id"] = streams.tx_at(out, asked)
    rows["peer_rx_id"] = streams.rx_at(out, asked)
    rows["peer_recv_id"] = streams.recv_at(out, asked_end)
    rows["peer_send_id"] = streams.send_at(back, answer)
    rows["peer_tx_id"] = streams.tx_at(back, answer)
    returned = take(waits.end, legs.wait, 0)
    slept = p.look.off_cpu.before(legs.tid, returned)
    inside = (slept >= 0) & (take(off["ts_ns"], slept) >= take(waits.begin, legs.wait, 1 << 62))
    rows["off_cpu_id"] = np.where((legs.wait >= 0) & inside, slept, -1)
    rows["epoll_id"] = take(waits.epoll, legs.wait)
    rows["poll_id"] = take(waits.poll, legs.wait)
    answered = take(rx["ts_ns"], first_rx, 0)
    rows["napi_poll_id"] = p.look.poll_of(first_rx)
    rows["tx_interrupt_id"] = p.look.sent_interrupt(rows["tx_id"], answered)
    rows["epoll_callback_id"] = p.look.epoll_told(
        legs.sock, take(rx["ts_ns"], rows["rx_id"], 0), returned
    )
    observed = np.zeros(len(legs.group), np.int64)
    for step in STEPS:
        proved = np.all([rows[need] >= 0 for need in step.needs], axis=0)
        observed += proved | (rows[step.instead] >= 0) if step.instead else proved
    return observed
