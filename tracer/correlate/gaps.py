"""What lost records may have touched: such rows are incomplete, and nothing is guessed for them."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import numpy as np

from tracer.correlate.events import CANCEL
from tracer.correlate.index import Bools, Index, Ints, distinct, previous_in_group, take
from tracer.correlate.sockets import is_pipe
from tracer.correlate.tasks import HOW_FUTURE, HOW_YIELD
from tracer.events.header import load as load_header

if TYPE_CHECKING:
    from tracer.correlate.calls import Calls
    from tracer.correlate.events import Events, Runs
    from tracer.correlate.picture import Picture
    from tracer.correlate.sockets import Socket
    from tracer.correlate.tasks import Suspensions, Tasks
    from tracer.correlate.wakes import Wakes

_NEVER = np.iinfo(np.int64).max


_GAPS = ("gap", "agent_gap")


def touched(events: Events, start: Ints, end: Ints, tables: tuple[str, ...] = _GAPS) -> Bools:
    """Say for each interval whether something was lost in it."""
    first = np.concatenate([events[name]["ts_ns"] for name in tables])
    last = np.concatenate([events[name]["end_ns"] for name in tables])
    if not len(first):
        return np.zeros(len(start), bool)
    order = np.argsort(first)
    reach = np.maximum.accumulate(last[order])
    at = np.searchsorted(first[order], end, side="right") - 1
    return np.asarray((at >= 0) & (take(reach, at) >= start))


def anything(events: Events) -> bool:
    """Say whether anything was lost at all."""
    return any(len(events[name]["ts_ns"]) for name in _GAPS)


def since(p: Picture, start: Ints) -> Ints:
    """Return from when on a row depends on records: its start, or its first byte if earlier.

    A receive whose own wake was lost counts for the next one, and one that was lost itself leaves
    a hole before the row's first byte: then the socket's last receive before the hole counts.
    Where it cannot be told whether that one woke a task, the row depends on the whole trace.
    """
    call, position = p.events["syscall"], p.streams.call_pos
    begin = start.copy()
    sus = np.flatnonzero(p.receipts.first_recv >= 0)
    first = p.receipts.first_recv[sus]
    prior = p.look.recv_before(call["sock"][first], call["ts_ns"][first])
    whole = take(position, prior) + take(call["ret"], prior) == position[first]
    earliest = np.where((prior >= 0) & ~whole, take(call["ts_ns"], prior), call["ts_ns"][first])
    earliest[np.isin(prior, p.wakes.doubtful)] = 0
    np.minimum.at(begin, p.sus.group[sus], earliest)
    return begin


def settled(p: Picture, last: Ints, end: Ints) -> Ints:
    """Return until when a row depends on records: its end, or the end of the next loop iteration.

    Up to then the other tasks make their steps that the same receive has woken, by itself or
    through a reader task: `recv_shared`. Up to then its own task, too, makes the receive that it
    may have been woken for: `read_in_task`.

    Args:
        p: the trace.
        last: each row's last suspension.
        end: its end, ns.

    """
    waits, tid = p.look.waits, p.sus.tid[last]
    over = waits.by_begin.after(tid, end)
    over = waits.by_begin.after(tid, take(waits.begin, over, _NEVER), strict=True)
    read = p.wakes.received[last] | p.wakes.may_read[last]
    return np.where(read, np.maximum(end, take(waits.begin, over, _NEVER)), end)


def until(p: Picture, calls: Ints, end: Ints) -> Ints:
    """Return until when a loose call depends on records: until its socket is closed.

    Up to then a receive that was lost may have been the one that made these bytes a task's.
    """
    call = p.events["syscall"]
    closed = p.look.close_after(call["sock"][calls], call["ts_ns"][calls])
    return np.maximum(end, take(call["ts_ns"], closed, _NEVER))


def nameless(p: Picture, last: Ints, task_id: Ints) -> Bools:
    """Say for each row of a task whether a text that it would show was lost.

    Args:
        p: the trace.
        last: each row's last suspension.
        task_id: its task.

    """
    if not anything(p.events):
        return np.zeros(len(last), bool)
    step, task = p.events["step"], p.events["task"]
    birth = p.tasks.row[task_id]
    agent = p.sus.agent[last]
    missing = (birth < 0) | ~p.tasks.named[task_id]
    for ids in (
        take(step["where_str"], p.sus.step[last], 0),
        take(step["leaf_str"], p.sus.step[last], 0),
        take(task["coro_str"], birth, 0),
    ):
        missing |= (ids > 0) & (p.events.known(agent, ids) < 0)
    return np.asarray(missing)


def beheaded(p: Picture, first: Ints) -> Bools:
    """Say for each row whether its first suspension continues one that was lost."""
    same = load_header().constants["RUN_RESUMED_SAME"]
    return np.asarray(take(p.events["step"]["flags"], p.sus.step[first], 0) & same != 0)


def served_unknown(p: Picture, last: Ints) -> Bools:
    """Say for each row whether its task then woke one of which it was lost what it waited for.

    Whether the receive that ended the row served that one, too, cannot be told.
    """
    return np.asarray(p.wakes.received[last] & np.isin(p.sus.next_run[last], p.woke_unknown))


def woke_unknown(events: Events, sus: Suspensions, wakes: Wakes) -> Ints:
    """Return the runs that woke a task of which it was lost what it waited for."""
    leaf = take(events["step"]["leaf_str"], sus.step, 0)
    unknown = (leaf > 0) & (events.known(sus.agent, leaf) < 0)
    unknown |= touched(events, sus.parked, sus.resume, ("agent_gap",))
    wakers = np.concatenate([sus.waker[unknown], wakes.wakers_of_lost])
    return wakers[wakers >= 0]


def wakes_of_lost(
    events: Events, runs: Runs, calls: Calls, tasks: Tasks
) -> tuple[Ints, Ints, Ints]:
    """Return the receives that ended suspensions of which there is no record.

    The step before was lost: what it waited for is not known, but the bytes are not another's.
    The second array has those of which that is not certain: the task's birth was lost, too, and
    the step may have been its first, of a task that the receive's callback made; or the task itself
    made the receive in a step that was lost, and perhaps went on to receive more, or in one of
    which it is not known what began it. The third array has the runs that ended the suspensions.
    """
    step, task = events["step"], events["task"]
    who = tasks.find(step["agent"], step["task"])
    order = np.lexsort((step["ts_ns"], who))
    before = take(order, previous_in_group(who[order]))
    prior = np.empty(len(order), np.int64)
    prior[order] = before
    how = take(step["how"], prior, 0)
    waker = take(runs.waker, runs.of_step)
    birth = tasks.row[who]
    newborn = (prior < 0) & (birth >= 0) & (take(task["run"], birth) == step["waker_run"])
    lost = np.flatnonzero((waker >= 0) & ~((how >= HOW_FUTURE) & (how <= HOW_YIELD)) & ~newborn)
    recvs = calls.recvs
    index = Index(calls.run[recvs], events["syscall"]["ts_ns"][recvs])
    through = waker[lost]
    # what a task woke waited for that task, or through it for a receive: that cannot be told
    by_callback = runs.is_callback(through) & (step["flags"][lost] & CANCEL == 0)
    direct = index.before(through, step["wake_ns"][lost])
    own = index.after(runs.of_step[lost], step["ts_ns"][lost])
    found = np.where(direct < 0, np.where(take(runs.wake, through, 1) == 0, own, -1), direct)
    found = np.where(by_callback, take(recvs, found), -1)
    doubtful = (prior[lost] < 0) & (birth[lost] < 0)
    of_step = recvs[(calls.task[recvs] > 0) & (calls.run[recvs] < 0)]  # its own step was lost
    woken = np.flatnonzero((step["waker_run"] > 0) & (waker < 0))  # by whom was lost
    first = take(recvs, index.after(runs.of_step[woken], step["ts_ns"][woken]))
    unsure = np.concatenate([of_step, first[first >= 0]])
    return (
        np.concatenate([found[found >= 0], unsure]),
        np.concatenate([found[(found >= 0) & doubtful], unsure]),
        through,
    )


def unaddressed(p: Picture, sock: Ints, moved: Bools) -> Bools:
    """Say for each row whether its socket's record was lost, or the one with its peer's address.

    Args:
        p: the trace.
        sock: each row's socket, 0 none.
        moved: whether it moved bytes.

    """
    if not anything(p.events):
        return np.zeros(len(sock), bool)
    used = distinct(sock[(sock > 0) & ~is_pipe(sock)]).tolist()
    unknown = [s for s in used if s not in p.sockets]
    told = p.events.manifest["level"] > 1  # that a socket is connected now is not seen below
    half = [s for s in used if told and s in p.sockets and not _peer_known(p.sockets[s])]
    return np.asarray(np.isin(sock, unknown) | (np.isin(sock, half) & moved))


def _peer_known(sock: Socket) -> bool:
    return sock.proto != socket.IPPROTO_TCP or bool(sock.remote[1])
