"""Which bytes belong to which suspension.

A receive that woke nobody belongs to the next one on its socket that did (an answer in several
receives). If nobody waited for that one yet, it belongs to the await that had sent last, as long as
it goes on (marked: its task finds the bytes in a buffer, and no wake edge says so), or to the one
that was just woken there and has not resumed; else to none: whoever finds the bytes in a buffer
need not wait. A send belongs to the suspension at the end of the step that made it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from tracer.correlate.gaps import anything, touched
from tracer.correlate.index import (
    Bools,
    Index,
    Ints,
    Keys,
    distinct,
    lean,
    of_rows,
    spans,
    sum_by,
    take,
)
from tracer.correlate.sockets import is_pipe
from tracer.correlate.wakes import BY_RECV, BY_WRITE, Wakes

if TYPE_CHECKING:
    from tracer.correlate.calls import Calls
    from tracer.correlate.events import Events, Runs
    from tracer.correlate.tasks import Suspensions

_NEVER = np.iinfo(np.int64).max


@dataclass
class Receipts:
    """Bytes by suspension, and the calls that no suspension explains.

    `first_recv` is the first receive of the group that woke the suspension; `shared` counts the
    suspensions that the waking receive served, `guessed` says that some bytes were given to the
    last sender. `kept` and `send_shared` say that some of the bytes sent were kept back at first,
    and that some went together with others'. `loose_recvs` are rows of `syscall`, `loose_sends` of
    Calls.sends, of callbacks that woke no task; `lost_recvs` and `lost_sends` those on a loop's
    thread that belong to no run and no task at all. `served_call` are receives, `served` the
    suspension that each was for: one that served several has a place for each.
    """

    sent: Ints
    received: Ints
    first_recv: Ints
    shared: Ints
    guessed: Bools
    kept: Bools
    send_shared: Bools
    loose_recvs: Ints
    loose_sends: Ints
    lost_recvs: Ints
    lost_sends: Ints
    served_call: Ints
    served: Ints

    def of_rows(self, rows: Ints) -> Receipts:
        """Return the bytes of some suspensions."""
        loose = ("loose_recvs", "loose_sends", "lost_recvs", "lost_sends")
        return replace(self, **of_rows(self, rows, whole=(*loose, "served_call", "served")))


def receipts_of(
    events: Events, runs: Runs, calls: Calls, sus: Suspensions, wakes: Wakes
) -> Receipts:
    """Distribute every receive and send."""
    call = events["syscall"]
    by_recv = np.flatnonzero(wakes.receive >= 0)
    recvs = calls.recvs
    order = recvs[np.lexsort((call["ts_ns"][recvs], call["sock"][recvs]))]
    sock = call["sock"][order]
    woke = np.isin(order, np.concatenate([wakes.receive[by_recv], wakes.of_lost]))
    sends = calls.sends
    by_sock = Index(call["sock"][sends.row], call["ts_ns"][sends.row])
    sent_last = by_sock.before(sock, call["ts_ns"][order])
    asker = _askers(events, calls, sus, wakes, order, woke, sent_last)
    reader = _readers(events, calls, sus, wakes, order, woke, sent_last)
    found = np.flatnonzero((asker >= 0) & (reader < 0))
    # who was awake because of this very socket reads all that is there
    told = (wakes.by == BY_RECV)[asker[found]] & (wakes.sock[asker[found]] == sock[found])
    guessed = np.bincount(asker[found][~told], minlength=sus.count) > 0
    early, ready = _early(events, sus, wakes, order, woke)
    asker = np.where(reader >= 0, reader, np.where(asker >= 0, asker, ready))
    received = sum_by(asker, call["ret"][order], sus.count)
    given, given_to = order[asker >= 0], asker[asker >= 0]
    spare, left = order[early & (asker < 0)], ~early & (asker < 0)
    order, woke = order[left], woke[left]
    sock, size = call["sock"][order], call["ret"][order]
    place = np.arange(len(order), dtype=np.int64)
    fresh = np.ones(len(order), bool)
    fresh[1:] = (sock[1:] != sock[:-1]) | woke[:-1]
    begin = np.maximum.accumulate(np.where(fresh, place, 0)) if len(order) else place
    total = np.concatenate([[0], np.cumsum(size)])
    where = Keys(order)
    at = where.find(wakes.receive[by_recv])
    first_recv = np.full(sus.count, -1, np.int64)
    shared = np.zeros(sus.count, np.int64)
    first_recv[by_recv] = order[begin[at]]
    received[by_recv] += total[at + 1] - total[begin[at]]
    served = (
        np.bincount(np.concatenate([at, where.find(wakes.of_lost)]), minlength=len(order))
        if len(order)
        else at
    )
    shared[by_recv] = served[at]

    # receives after the last one that woke somebody on their socket, or before anybody's question
    claimed = _next_woken(sock, woke) < len(sock)
    rest = np.concatenate([order[~claimed], spare])
    of_run = Keys(sus.run)
    own = of_run.find(calls.run[rest])
    in_step = take(runs.step, calls.run[rest]) >= 0
    received += sum_by(np.where(in_step, own, -1), call["ret"][rest], sus.count)
    in_callback = runs.is_callback(calls.run[rest])
    nobody = _nobodys(events, runs, rest, calls.run[rest], calls.task[rest])
    orphans = _nobodys(events, runs, sends.row, sends.run, sends.task)

    owner = np.where(take(runs.step, sends.run) >= 0, of_run.find(sends.run), -1)
    later = np.flatnonzero(runs.is_callback(sends.run))
    owner[later], left_over = _callback_send_owner(events, calls, sus, wakes, later)
    kept = sends.kept & (calls.run[sends.row] != sends.run)
    kept[later] = left_over
    sent = sum_by(owner, sends.bytes, sus.count)
    return Receipts(
        sent=lean(sent),
        received=lean(received),
        first_recv=lean(first_recv),
        shared=lean(shared),
        guessed=guessed,
        kept=np.bincount(owner[kept & (owner >= 0)], minlength=sus.count) > 0,
        send_shared=np.bincount(owner[sends.shared() & (owner >= 0)], minlength=sus.count) > 0,
        loose_recvs=rest[in_callback & (call["ret"][rest] > 0)],
        loose_sends=later[owner[later] < 0],
        lost_recvs=rest[nobody & (call["ret"][rest] > 0)],
        lost_sends=np.flatnonzero(orphans),
        served_call=lean(np.concatenate([given, order[spans(begin[at], at + 1)]])),
        served=lean(np.concatenate([given_to, np.repeat(by_recv, at + 1 - begin[at])])),
    )


def _nobodys(events: Events, runs: Runs, rows: Ints, run: Ints, task: Ints) -> Bools:
    """Say which calls belong to no run and no task though a loop ran in their thread.

    Before a loop was seen there, and after its last run, the program itself uses its sockets.
    """
    call, loop = events["syscall"], events["loop"]
    tid, ts = call["tid"][rows], call["ts_ns"][rows]
    nobody = (run < 0) & (task == 0) & np.isin(tid, distinct(runs.tid))
    nobody &= ~is_pipe(call["sock"][rows])
    if anything(events):  # its loop's record may be among what was lost
        return np.asarray(nobody)
    loops = Index(loop["tid"], loop["ts_ns"])
    begun = loops.before(tid, ts) >= 0
    run = take(runs.begin, Index(runs.tid, runs.begin).after(tid, ts), _NEVER)
    another = take(loop["ts_ns"], loops.after(tid, ts), _NEVER)
    return np.asarray(nobody & begun & (run < another))


def _askers(  # noqa: PLR0913, PLR0917 (what receipts_of has)
    events: Events,
    calls: Calls,
    sus: Suspensions,
    wakes: Wakes,
    order: Ints,
    woke: Bools,
    last: Ints,
) -> Ints:
    """Return the suspension of the last sender for receives that nobody waited for, else -1.

    Args:
        events: the trace.
        calls: its calls.
        sus: its suspensions.
        wakes: how they ended.
        order: receives sorted by socket, time.
        woke: which of them woke somebody.
        last: the last of `calls.sends` on the socket before each, -1 for none.

    """
    call, n = events["syscall"], len(order)
    sock, ts = call["sock"][order], call["ts_ns"][order]
    by_recv = np.flatnonzero(wakes.receive >= 0)
    at = Keys(order).find(wakes.receive[by_recv])
    since, group = _since(woke, at, sus.begin[by_recv]), np.full(n + 1, -1, np.int64)
    group[at] = sus.group[by_recv]
    after = _next_woken(sock, woke)
    asker = np.where(last >= 0, Keys(sus.run).find(take(calls.sends.run, last)), -1)
    sent_ns = take(call["ts_ns"], take(calls.sends.row, last), 0)
    going_on = (take(sus.begin, asker, _NEVER) <= ts) & (take(sus.resume, asker) > ts)
    unasked = ~woke & (since[after] > ts) & (take(sus.group, asker) != group[after])
    fits = (asker >= 0) & going_on & unasked & ~touched(events, sent_ns, ts)
    return np.where(fits, asker, -1)


def _readers(  # noqa: PLR0913, PLR0917 (what receipts_of has)
    events: Events,
    calls: Calls,
    sus: Suspensions,
    wakes: Wakes,
    order: Ints,
    woke: Bools,
    last: Ints,
) -> Ints:
    """Return the suspension that just ended for receives that its task made itself, else -1.

    It was woken by the same socket, and has not sent there since. See _askers for the arguments.
    """
    call = events["syscall"]
    run, sock = calls.run[order], call["sock"][order]
    ended = np.where(run >= 0, Keys(sus.next_run).find(run), -1)
    fresh = take(calls.sends.written_ns, last) >= take(sus.resume, ended)
    fits = ~woke & (ended >= 0) & (take(wakes.by, ended) == BY_RECV) & ~fresh
    return np.where(fits & (take(wakes.sock, ended) == sock), ended, -1)


def _early(
    events: Events, sus: Suspensions, wakes: Wakes, order: Ints, woke: Bools
) -> tuple[Bools, Ints]:
    """Say which receives came before the await began that the next one on their socket woke.

    Returns this of each receive (sorted by socket, time), and for those of which it is true the
    suspension that was just woken there, alone, and had not resumed yet; -1 for none.
    """
    call, n = events["syscall"], len(order)
    sock, ts = call["sock"][order], call["ts_ns"][order]
    by_recv = np.flatnonzero(wakes.receive >= 0)
    received = wakes.receive[by_recv]
    at = Keys(order).find(received)
    since = _since(woke, at, sus.row_begin[by_recv])
    after = _next_woken(sock, woke)
    early = (after < n) & ~woke & (since[after] > ts)
    places = np.flatnonzero(early)
    came = Index(call["sock"][received], call["ts_ns"][received])
    last = came.before(sock[places], ts[places])
    alone = np.bincount(at, minlength=n + 1)[take(at, last, n)] == 1
    waits = alone & (take(sus.resume, take(by_recv, last)) > ts[places])
    ready = np.full(n, -1, np.int64)
    ready[places] = np.where(waits, take(by_recv, last), -1)
    return early, ready


def _since(woke: Bools, at: Ints, begin: Ints) -> Ints:
    """Return since when somebody waited for each receive; with a place more, for none.

    Args:
        woke: which receives woke somebody.
        at: the receive of each wait that one ended.
        begin: when that wait began.

    """
    since = np.full(len(woke) + 1, _NEVER)
    np.minimum.at(since, at, begin)
    since[:-1][woke & (since[:-1] == _NEVER)] = 0  # the record of its wait was lost
    return since


def _next_woken(sock: Ints, woke: Bools) -> Ints:
    """Return the place of the next receive (sorted by socket, time) that woke, len(sock): none."""
    n = len(sock)
    places = np.where(woke, np.arange(n), n)
    after = np.minimum.accumulate(places[::-1])[::-1] if n else places
    return np.where(take(sock, np.where(after < n, after, -1)) == sock, after, n)


def _callback_send_owner(
    events: Events, calls: Calls, sus: Suspensions, wakes: Wakes, sends: Ints
) -> tuple[Ints, Bools]:
    """Return the suspension that each callback's send belongs to, and which ones a task left.

    Args:
        events: the trace.
        calls: its calls.
        sus: its suspensions.
        wakes: how they ended.
        sends: those of `calls.sends` that callbacks wrote.

    """
    call, sent = events["syscall"], calls.sends
    run, row = sent.run[sends], sent.row[sends]
    sock, ts = call["sock"][row], call["ts_ns"][row]
    writes = np.flatnonzero(wakes.by == BY_WRITE)
    drained = take(writes, Keys(wakes.call_run[writes]).find(run))
    reads = np.flatnonzero(wakes.by == BY_RECV)
    following = take(
        reads, Index(wakes.sock[reads], call["ts_ns"][wakes.call[reads]]).after(sock, ts)
    )
    # only a suspension that had begun by then can own it
    following = np.where(take(sus.begin, following, 1 << 62) <= ts, following, -1)
    own = np.flatnonzero(sent.task > 0)
    own_row = sent.row[own]
    last = take(own, Index(call["sock"][own_row], call["ts_ns"][own_row]).before(sock, ts))
    stepped = Keys(sus.run).find(take(sent.run, last))
    # another task's send may be among what was lost in between
    before = take(call["ts_ns"], take(sent.row, last), 0)
    stepped = np.where(touched(events, before, ts), -1, stepped)
    left = np.where(drained >= 0, drained, np.where(following < 0, stepped, -1))
    left[sent.kept[sends]] = -1  # the callback wrote these bytes itself
    return np.where(left >= 0, left, following), left >= 0
