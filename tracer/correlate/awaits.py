"""The `await` table: one row per await, and per callback that handled bytes for nobody."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tracer.correlate import gaps, lag, reasons
from tracer.correlate.events import CANCEL, FAILED, THROWN
from tracer.correlate.index import Ints, distinct, ints, sum_by, take
from tracer.correlate.legs import UNKNOWN
from tracer.correlate.sockets import is_pipe
from tracer.correlate.tasks import HOW_CANCELLED, HOW_FAILED
from tracer.correlate.wakes import (
    BY_CANCEL,
    BY_RECV,
    BY_SIGNAL,
    BY_TASK,
    BY_THREAD,
    BY_TIMER,
    BY_WRITE,
    SOCKET,
)
from tracer.correlate.words import KINDS, LAG, STAGES

if TYPE_CHECKING:
    from tracer.correlate.events import Events
    from tracer.correlate.legs import Legs
    from tracer.correlate.picture import Picture
    from tracer.correlate.sockets import Socket
    from tracer.correlate.tasks import Suspensions
    from tracer.correlate.wakes import Wakes

_ENDED = np.full(16, "callback", object)  # the last one is for UNKNOWN
for _by, _word in (
    (BY_RECV, "recv"),
    (BY_WRITE, "write"),
    (BY_TIMER, "timer"),
    (BY_TASK, "task"),
    (BY_THREAD, "thread"),
    (BY_CANCEL, "cancel"),
):
    _ENDED[_by] = _word


def await_columns(p: Picture, legs: Legs) -> dict[str, Any]:
    """Return the columns of the rows that belong to tasks; unknown numbers are UNKNOWN."""
    events, sus, wakes, receipts = p.events, p.sus, p.wakes, p.receipts
    n = sus.groups
    step = events["step"]
    first = np.searchsorted(sus.group, np.arange(n), side="left")
    last = np.searchsorted(sus.group, np.arange(n), side="right") - 1
    bits = np.zeros(n, np.int64)
    np.bitwise_or.at(bits, legs.group, legs.reasons)
    is_open = sus.next_step[last] < 0
    leaf = events.texts(sus.agent[last], take(step["leaf_str"], sus.step[last], 0))
    columns: dict[str, Any] = {
        "task_id": sus.task[first],
        "where": events.texts(sus.agent[last], take(step["where_str"], sus.step[last], 0)),
        "leaf": leaf,
        "kind": _row_kinds(sus, wakes, n),
        "tgid": _tgids(events, sus.agent[first]),
        "tid": sus.tid[last],
        "sent_bytes": sum_by(sus.group, receipts.sent, n),
        "recv_bytes": sum_by(sus.group, receipts.received, n),
        "round_trips": sum_by(
            legs.group, ((legs.by == BY_RECV) & (legs.rows["send_id"] >= 0)).astype(np.int64), n
        ),
        "start_ns": sus.begin[first],
        "suspend_ns": sus.parked[first],
        "end_ns": sus.resume[last],
        "ended_by": _ended_types(p, last),
        "ended_id": _ended_ids(p, last),
        "outcome": _outcomes(p, last, leaf, is_open),
        "attribution": _attributions(bits),
        "legs": np.bincount(legs.group, minlength=n).astype(np.int64) if n else first,
    }
    columns |= _stage_sums(legs, n)
    columns |= _lag_sums(p, legs, n)
    mixed = (columns["gil_ns"] == UNKNOWN) | (columns["throttled_ns"] == UNKNOWN)
    bits[mixed] |= reasons.bit("not_separated")
    columns |= _sockets_of_rows(p, n)
    # a packet that nobody saw came at any time before, if packets were lost
    unseen = bits & reasons.bit("no_packet_event") != 0
    since = np.where(unseen, 0, gaps.since(p, columns["start_ns"]))
    lossy = gaps.touched(events, since, gaps.settled(p, last, columns["end_ns"]))
    lossy |= gaps.nameless(p, last, columns["task_id"]) | gaps.served_unknown(p, last)
    lossy |= gaps.beheaded(p, first)
    moved = columns["sent_bytes"] + columns["recv_bytes"] > 0
    lossy |= gaps.unaddressed(p, columns["sock"], moved)
    bits[lossy] |= reasons.bit("ring_full")
    columns["complete"] = ~lossy & ~is_open
    columns["reasons"] = bits
    return columns


def _row_kinds(sus: Suspensions, wakes: Wakes, n: int) -> Any:  # noqa: ANN401
    """Return each row's kind: of its last suspension; `socket` if any of them was that."""
    last = np.searchsorted(sus.group, np.arange(n), side="right") - 1
    row = wakes.kind[last]
    row[sus.group[wakes.kind == SOCKET]] = SOCKET
    return np.array(KINDS, object)[row]


def _attributions(bits: Ints) -> Any:  # noqa: ANN401
    words = np.full(len(bits), "exact", object)
    words[bits & reasons.bit("last_sender") != 0] = "inferred"
    return words


def _tgids(events: Events, agent: Ints) -> Ints:
    tgids = [int(info.get("tgid", -1)) for info in events.manifest["agents"]] or [-1]
    return np.array(tgids, np.int64)[agent] if len(agent) else agent


def _ended_ids(p: Picture, last: Ints) -> Ints:
    """Return the syscall row for recv and write, the task_id for task, the tid for thread.

    For all else it is the row of the callback that made the task ready.
    """
    runs, wakes = p.runs, p.wakes
    root = wakes.root[last]
    step = p.events["step"]
    at = take(runs.step, root)
    task = p.tasks.find(take(runs.agent, root, 0), take(step["task"], at, 0))
    by = wakes.by[last]
    back = np.where(by == BY_SIGNAL, wakes.link[last], root)
    ids = np.where(np.isin(by, (BY_RECV, BY_WRITE)), wakes.call[last], take(runs.callback, back))
    ids = np.where(np.isin(by, (BY_TASK, BY_CANCEL)) & (task > 0), task, ids)
    work = p.events["work"]
    in_thread = take(work["end_ns"], wakes.work[last]) > 0
    worker = np.where(in_thread, take(work["tid"], wakes.work[last]), take(runs.wake_tid, root))
    return np.where(by == BY_THREAD, worker, ids)


def _ended_types(p: Picture, last: Ints) -> Any:  # noqa: ANN401
    """Return the contract's word for each row; `cancel` has a task for a canceller."""
    by = p.wakes.by[last]
    step = take(p.runs.step, p.wakes.root[last])
    return _ENDED[np.where((by == BY_CANCEL) & (step < 0), UNKNOWN, by)]


def _outcomes(p: Picture, last: Ints, leaf: Any, is_open: Any) -> Any:  # noqa: ANN401
    """Return how each await ended: what was thrown into the task, or the child's end told it."""
    flags = p.sus.next_flags[last]
    outcome = np.full(len(last), "result", object)
    # until 3.11 wait_for itself waits for a future without a result, then takes the child's
    child = take(p.events["step"]["how"], take(p.runs.step, p.wakes.root[last]), 0)
    child = np.where((p.wakes.by[last] == BY_TASK) & (p.wakes.link[last] >= 0), child, 0)
    ended = np.flatnonzero((child == HOW_FAILED) | (child == HOW_CANCELLED))
    child = child[ended]
    parts = np.array([text.rpartition("/asyncio/tasks.py:")[2] for text in leaf[ended]], object)
    for part, how, word in (
        ("wait_for", HOW_FAILED, "exception"),
        ("wait_for", HOW_CANCELLED, "cancelled"),
        ("_cancel_and_wait", HOW_FAILED, "exception"),
        ("_cancel_and_wait", HOW_CANCELLED, "exception"),  # the timeout
    ):
        outcome[ended[(parts == part) & (child == how)]] = word
    outcome[flags & (THROWN | FAILED) != 0] = "exception"
    outcome[flags & CANCEL != 0] = "cancelled"
    outcome[is_open] = "open"
    return outcome


def _stage_sums(legs: Legs, n: int) -> dict[str, Ints]:
    sums = {}
    for name, stage in zip(STAGES, legs.stages, strict=True):
        known = stage != UNKNOWN
        total = sum_by(legs.group, np.where(known, stage, 0), n)
        any_known = sum_by(legs.group, known.astype(np.int64), n) > 0
        sums[f"{name}_ns"] = np.where(any_known, total, UNKNOWN)
    return sums


def _lag_sums(p: Picture, legs: Legs, n: int) -> dict[str, Ints]:
    """Split wake, queue and resume of every leg by cause and sum them by row."""
    _t0, _t1, _t2, _t3, t4, t5, t6, t7, t8 = legs.cuts

    def interval(start: Ints, end: Ints) -> tuple[Ints, Ints]:
        known = start != UNKNOWN
        return np.where(known, start, 0), np.where(known, end, 0)

    after4 = np.where(
        t5 != UNKNOWN, t5, np.where(t6 != UNKNOWN, t6, np.where(t7 != UNKNOWN, t7, t8))
    )
    after5 = np.where(t6 != UNKNOWN, t6, np.where(t7 != UNKNOWN, t7, t8))
    parts = lag.split(
        p.threads,
        p.runs,
        legs.tid,
        [interval(t4, after4), interval(t5, after5), interval(t7, t8)],
        legs.own_run,
    )
    sums = {name: sum_by(legs.group, part, n) for name, part in parts.items()}
    if not p.threads.tells_throttled:
        sums["throttled_ns"][:] = UNKNOWN
    last = np.searchsorted(p.sus.group, np.arange(n), side="right") - 1
    sums["gil_ns"][~p.threads.tell_gil(p.sus.tid[last])] = UNKNOWN
    return sums


def _sockets_of_rows(p: Picture, n: int) -> dict[str, Any]:
    """Return the descriptors each row used (as pairs of row and one), its socket and its peer."""
    call, sus, wakes = p.events["syscall"], p.sus, p.wakes
    moved, group = p.calls_of_awaits()
    ended = np.flatnonzero(wakes.call >= 0)
    pairs = distinct(
        np.concatenate(
            [
                ints(group) << 32 | call["fd"][moved],
                ints(sus.group[ended]) << 32 | call["fd"][wakes.call[ended]],
            ]
        )
    )
    sock = np.zeros(n, np.int64)
    sock[group] = call["sock"][moved]
    sock[sus.group[ended]] = wakes.sock[ended]
    return {
        "fds": (pairs >> 32, pairs & 0xFFFFFFFF),
        "sock": sock,
        "peer": peers_of(p.sockets, sock),
    }


def peers_of(sockets: dict[int, Socket], sock: Ints) -> Any:  # noqa: ANN401
    """Return the remote address of each socket as text, empty where there is none."""
    used = distinct(sock)
    texts = np.array(
        [_peer_text(sockets[s]) if s in sockets else "" for s in used.tolist()], object
    )
    texts[is_pipe(used)] = "pipe"
    return texts[np.searchsorted(used, sock)]


def _peer_text(sock: Socket) -> str:
    host, port = sock.remote
    if not port:
        return "unix" if sock.family == 1 else ""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclass(frozen=True)
class Loose:
    """Rows for bytes that a protocol's callback handled and woke no task, and the lost.

    `head` is the first call of each row, `run` its callback: the first `known` rows have one.
    Bytes by row.
    """

    head: Ints
    run: Ints
    known: int
    sent: Ints
    received: Ints

    @property
    def count(self) -> int:
        """Return the number of rows."""
        return len(self.head)


def loose_of(p: Picture) -> Loose:
    """Put the calls that no suspension explains together by callback and socket."""
    call, calls, receipts = p.events["syscall"], p.calls, p.receipts
    sends, recvs = calls.sends, receipts.loose_recvs
    loose = np.concatenate([recvs, sends.row[receipts.loose_sends]])
    run = np.concatenate([calls.run[recvs], sends.run[receipts.loose_sends]])
    size = np.concatenate([call["ret"][recvs], sends.bytes[receipts.loose_sends]])
    order = np.lexsort((call["ts_ns"][loose], call["sock"][loose], run))
    loose, run, size = loose[order], run[order], size[order]
    sock = call["sock"][loose]
    fresh = np.ones(len(loose), bool)
    fresh[1:] = (run[1:] != run[:-1]) | (sock[1:] != sock[:-1])
    group = np.cumsum(fresh) - 1
    known = int(fresh.sum())
    is_recv = order < len(recvs)
    lost_recvs, lost_sends = receipts.lost_recvs, receipts.lost_sends
    none = np.full(len(lost_recvs) + len(lost_sends), -1, np.int64)
    return Loose(
        head=np.concatenate([loose[fresh], lost_recvs, sends.row[lost_sends]]),
        run=np.concatenate([run[fresh], none]),
        known=known,
        sent=np.concatenate(
            [
                sum_by(group, np.where(is_recv, 0, size), known),
                np.zeros(len(lost_recvs), np.int64),
                sends.bytes[lost_sends],
            ]
        ),
        received=np.concatenate(
            [
                sum_by(group, np.where(is_recv, size, 0), known),
                call["ret"][lost_recvs],
                np.zeros(len(lost_sends), np.int64),
            ]
        ),
    )


def callback_columns(p: Picture, loose: Loose, rows: Ints) -> dict[str, Any]:
    """Return the columns of some loose rows."""
    events, runs, calls = p.events, p.runs, p.calls
    call, heads, known = events["syscall"], loose.head[rows], rows < loose.known
    n, run, sock = len(rows), loose.run[rows], call["sock"][heads]
    start = call["ts_ns"][heads]
    end = np.maximum(np.where(run >= 0, take(runs.end, run), 0), start + call["dur_ns"][heads])
    none = np.full(n, UNKNOWN, np.int64)
    # whose bytes a send from the buffer carries was decided before, perhaps long before
    since = np.where(loose.sent[rows] > 0, 0, start)
    lossy = gaps.touched(events, since, gaps.until(p, heads, end))
    lossy |= ~known & gaps.anything(events)  # it may be why nobody is known to have made the call
    lossy |= gaps.unaddressed(p, sock, np.ones(n, bool))
    columns: dict[str, Any] = {
        "task_id": none,
        "where": np.full(n, "", object),
        "leaf": np.full(n, "", object),
        "kind": np.where(known, np.array("callback", object), np.array("socket", object)),
        "tgid": calls.tgid[heads],
        "tid": call["tid"][heads],
        "sent_bytes": loose.sent[rows],
        "recv_bytes": loose.received[rows],
        "round_trips": np.zeros(n, np.int64),
        "start_ns": start,
        "suspend_ns": none,
        "end_ns": end,
        "ended_by": np.full(n, "callback", object),
        "ended_id": take(runs.callback, run),
        "outcome": np.full(n, "result", object),
        "attribution": np.where(known, np.array("exact", object), np.array("unattributed", object)),
        "legs": np.zeros(n, np.int64),
        "complete": ~lossy,
        "reasons": np.where(lossy, reasons.bit("ring_full"), 0),
        "fds": (np.arange(n), ints(call["fd"][heads])),
        "sock": sock,
        "peer": peers_of(p.sockets, sock),
    }
    columns |= {f"{name}_ns": none for name in STAGES}
    columns["read_ns"] = end - start
    columns |= dict.fromkeys(LAG, none)
    return columns
