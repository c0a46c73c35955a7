"""Which call, on which socket, in which run, ended each suspension.

Rule: a receive belongs to the tasks that were woken, in the same callback, after it; through a
reader task, one hop further. What call_soon puts between the cause and the task (the done callbacks
behind gather, TaskGroup, shield, wait_for) is passed through. "The last sender on the descriptor"
is not used.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from tracer.correlate.calls import EPOLL_CTL_ADD
from tracer.correlate.events import CANCEL, FROM_THREAD, TIMER
from tracer.correlate.gaps import touched, wakes_of_lost
from tracer.correlate.index import (
    Bools,
    Index,
    Ints,
    Keys,
    lean,
    of_rows,
    take,
)
from tracer.correlate.sockets import is_pipe
from tracer.correlate.tasks import (
    HOW_CANCELLED,
    HOW_FUTURE,
    HOW_GATHER,
    HOW_TASK,
    HOW_YIELD,
    Suspensions,
    Tasks,
)
from tracer.correlate.words import KINDS
from tracer.system import syscalls

if TYPE_CHECKING:
    from tracer.correlate.calls import Calls
    from tracer.correlate.events import Events, Runs

# how a suspension ended
(
    BY_RECV,
    BY_WRITE,
    BY_TIMER,
    BY_TASK,
    BY_THREAD,
    BY_CALLBACK,
    BY_CANCEL,
    BY_CONNECT,
    BY_ACCEPT,
    BY_NOTHING,
    BY_SIGNAL,
) = range(11)
# callbacks of callbacks and cancelled tasks of cancelled tasks that are followed to a cause
_MAX_LINKS = 32
_NEVER = np.iinfo(np.int64).max

# aiohttp's pool: a connection that another task's receive has set free, not an answer
_POOL = "_wait_for_available_connection"
# what was awaited, by the innermost function of the chain (CPython's Lib/asyncio)
_LEAF_KINDS = (
    ("/asyncio/tasks.py:sleep", "timer"),
    ("/asyncio/tasks.py:", "task"),
    ("/asyncio/taskgroups.py:", "task"),
    ("/asyncio/timeouts.py:", "task"),
    ("/asyncio/locks.py:Event.", "event"),
    ("/asyncio/locks.py:", "lock"),
    ("/asyncio/queues.py:", "queue"),
    ("/asyncio/subprocess.py:", "subprocess"),
    ("/asyncio/base_subprocess.py:", "subprocess"),
    ("_make_subprocess_transport", "subprocess"),
    ("/asyncio/threads.py:", "thread"),
    ("/asyncio/streams.py:", "socket"),
    ("/asyncio/selector_events.py:BaseSelectorEventLoop.sock_", "socket"),
    (_POOL, "lock"),
)
GENERIC = ("future", "socket")
SOCKET = KINDS.index("socket")
_WRAPPING = (*GENERIC, "task")
# methods of a SubprocessProtocol: its child's output, end of output, and end
_OF_CHILD = (".pipe_data_received", ".pipe_connection_lost", ".process_exited")


def leaf_kind(leaf: str) -> str:
    """Return the kind that a chain's innermost function names, `future` if it names none."""
    for part, kind in _LEAF_KINDS:
        if part in leaf:
            # 3.9 and 3.10 give the bare function name, `wait`, for all of locks.py
            return kind
    return "future"


@dataclass
class Wakes:
    """How each suspension ended.

    `root` is the run that caused it, `link` the run by which that came to the task: what `root` put
    on the ready queue, at `root_ns` (-1: the task itself). `began` is the callback in which it all
    began: `root`, or the one behind a reader task. `call` is the row of `syscall` that ended it
    (-1: none), `call_run` the run it was made in, `sock` its socket; `in_task` where the woken task
    itself made it. `receive` is the receive that made the task ready, by its end or by cancelling
    it; also that of a task that was cancelled before it went on. `may_read`: no receive is known,
    and one that its task made after it, first thing, would have been it. `work` is the row of
    `work` whose end `root` tells, `kind` an index into KINDS. `of_lost` are receives that ended
    suspensions of which there is no record, `doubtful` those among them that perhaps only led to a
    new task; `wakers_of_lost` the runs that ended such suspensions.
    """

    by: Ints
    root: Ints
    root_ns: Ints
    link: Ints
    began: Ints
    call: Ints
    call_run: Ints
    receive: Ints
    sock: Ints
    in_task: Bools
    may_read: Bools
    work: Ints
    kind: Ints
    of_lost: Ints
    doubtful: Ints
    wakers_of_lost: Ints

    def of_rows(self, rows: Ints) -> Wakes:
        """Return how some suspensions ended."""
        return replace(self, **of_rows(self, rows, whole=("of_lost", "doubtful", "wakers_of_lost")))

    @property
    def received(self) -> Bools:
        """Say of each suspension whether a receive made its task ready."""
        return np.asarray(self.receive >= 0)


class _Search:
    """Looks for what ended each suspension, one way after the other.

    `waker`, `wake`, `link` see _Chain.root; `behind` is the run behind a waker that was woken
    itself (a reader task), `behind_ns` when that acted. Rows are those of `syscall`, -1 for none.
    """

    def __init__(self, events: Events, runs: Runs, calls: Calls, sus: Suspensions) -> None:
        self.events, self.runs, self.calls, self.sus = events, runs, calls, sus
        call, step = events["syscall"], events["step"]
        self.leaf_ids = take(step["leaf_str"], sus.step, 0)
        self.leaf = events.numbers(
            sus.agent, self.leaf_ids, lambda text: KINDS.index(leaf_kind(text))
        )
        nameless = (self.leaf_ids > 0) & (events.known(sus.agent, self.leaf_ids) < 0)
        self.leaf[nameless] = KINDS.index("unknown")
        self.recvs = Index(calls.run[calls.recvs], call["ts_ns"][calls.recvs])
        self.sends = Index(calls.run[calls.sends.row], call["ts_ns"][calls.sends.row])
        self.chain = _Chain(events, runs, calls, self.recvs)
        self.waker, self.wake, self.link = self.chain.root(sus)
        self.over = _over(events, runs, self.waker)
        self.by_callback = runs.is_callback(self.waker)
        self.from_reader = self.by_callback & (take(runs.wake, self.waker, 1) == 0)
        self.behind, self.behind_ns, _ = self.chain.follow(
            take(runs.waker, self.waker), take(runs.wake, self.waker), np.zeros(sus.count, bool)
        )

    def received(self) -> tuple[Ints, Bools]:
        """Return the receives, and where one was found behind a reader task."""
        generic, received_in = self._generic(), self.last_received_in
        direct = np.where(self.by_callback | generic, received_in(self.waker, self.wake), -1)
        hopped = received_in(self.behind, self.behind_ns)
        hop = generic & ~self.by_callback & (self.waker >= 0) & (direct < 0) & (hopped >= 0)
        hop &= self.runs.is_callback(self.behind)
        # a task that awaits a lock or a queue waits for its owner, whoever woke that one
        primitive = ~generic & _is_of(self.leaf, ("lock", "event", "queue"))
        pooled = self.events.passing(self.sus.agent, self.leaf_ids, lambda text: _POOL in text)
        others = (primitive & ~self.by_callback) | pooled
        return np.where(others, -1, np.where(hop, hopped, direct)), hop

    def _generic(self) -> Bools:
        """Say where the task awaited a future that may be anything's: a receive's, too."""
        sus = self.sus
        generic = _is_of(self.leaf, GENERIC) & (sus.how == HOW_FUTURE)
        # a step in between may be lost: then the task waited for something else in the end
        generic &= ~touched(self.events, sus.parked, sus.resume, ("agent_gap",))
        # a reader task's future, awaited through wait_for, shield or gather; not the task itself
        through = ~self.over & (generic | _is_of(self.leaf, _WRAPPING))
        return np.asarray(np.where(self.link >= 0, through, generic))

    def written(self) -> Ints:
        """Return the sends of a writer's callback."""
        sends, at = self.calls.sends.row, self.sends.before(self.waker, self.wake)
        return np.where(self.from_reader, take(sends, at), -1)

    def connected(self) -> Ints:
        """Return the task's own connect calls whose end a callback told."""
        call = self.events["syscall"]
        rows = np.flatnonzero(
            (call["nr"] == syscalls.NUMBER["connect"])
            & (call["sock"] > 0)
            & (call["ret"] == -errno.EINPROGRESS)
        )
        at = Index(self.calls.run[rows], call["ts_ns"][rows]).before(self.sus.run, self.sus.parked)
        return np.where(self.from_reader, take(rows, at), -1)

    def accepted(self) -> Ints:
        """Return the accepts of a callback."""
        call = self.events["syscall"]
        accepts = [syscalls.NUMBER[name] for name in ("accept", "accept4")]
        rows = np.flatnonzero(np.isin(call["nr"], accepts) & (call["ret"] >= 0))
        at = Index(self.calls.run[rows], call["ts_ns"][rows]).before(self.waker, self.wake)
        return np.where(self.by_callback, take(rows, at), -1)

    def read_by_task(self) -> tuple[Ints, Bools, Bools]:
        """Return what the task reads first thing by itself, woken by a callback that read nothing.

        Returns the receives, where it may be so (the receive may be lacking: -1), and where that
        callback woke a task of wait_for's instead.
        """
        call, sus = self.events["syscall"], self.sus
        own = take(self.calls.recvs, self.recvs.after(sus.next_run, sus.resume))
        sends = take(self.calls.sends.row, self.sends.after(sus.next_run, sus.resume))
        first = take(call["ts_ns"], own) < take(call["ts_ns"], sends, _NEVER)
        wrapped = (self.link >= 0) & self.over & ~self.by_callback & _is_of(self.leaf, _WRAPPING)
        by_reader = self.runs.is_callback(self.behind)
        by_reader &= take(self.runs.wake, self.behind, 1) == 0
        # whose first step found it there: the loop was asked for the socket during this very await
        found_there = take(self.runs.waker, self.waker) == sus.run
        found_there &= _asked_for(self.events, take(call["sock"], own, 0), sus)
        wrapped &= by_reader | found_there
        return np.where(first, own, -1), self.from_reader | wrapped, wrapped

    def told_at_end(self) -> tuple[Ints, Ints]:
        """Return the suspensions that a cancellation ended, and each one's receive before it."""
        sus, call = self.sus, self.events["syscall"]
        ended = np.flatnonzero(sus.next_flags & CANCEL != 0)
        run, when, _ = self.chain.follow(
            sus.waker[ended], sus.wake[ended], np.zeros(len(ended), bool)
        )
        told = np.where(self.runs.is_callback(run), self.last_received_in(run, when), -1)
        told[touched(self.events, take(call["ts_ns"], told, 0), sus.wake[ended])] = -1
        return ended, told

    def last_received_in(self, run: Ints, when: Ints) -> Ints:
        """Return the last receive in each run (-1: none) before a time."""
        at = self.recvs.before(run, when)
        return np.where(run >= 0, take(self.calls.recvs, at), -1)

    def in_time(self, rows: Ints) -> Ints:
        """Leave out what came before the question: it is no answer to it.

        A child's output is told of after its read.
        """
        call = self.events["syscall"]
        early = take(call["ts_ns"], rows) < self.sus.begin
        return np.where(early & ~is_pipe(take(call["sock"], rows, 0)), -1, rows)

    def sure(self, rows: Ints) -> Ints:
        """Leave out where a later call that is the true one may be among what was lost."""
        since = take(self.events["syscall"]["ts_ns"], rows, 0)
        return np.where(touched(self.events, since, self.wake), -1, rows)


def wakes_of(events: Events, runs: Runs, calls: Calls, sus: Suspensions, tasks: Tasks) -> Wakes:
    """Find the evidence for the end of every suspension."""
    call = events["syscall"]
    look = _Search(events, runs, calls, sus)
    received, hop = look.received()
    accepted = look.accepted()
    own, may_read, wrapped = look.read_by_task()
    may_read &= (received < 0) & (accepted < 0)
    in_task = may_read & (own >= 0)
    received = look.sure(look.in_time(received))
    written = look.sure(look.in_time(look.written()))
    accepted, connected = look.sure(accepted), look.sure(look.connected())
    work = _told_work(events, runs, look.waker)
    flags = take(runs.flags, look.waker, 0)
    by_timer = flags & TIMER != 0
    by_thread = (look.by_callback & (flags & FROM_THREAD != 0)) | (work >= 0)
    ended, told = look.told_at_end()
    cancelled = sus.next_flags & CANCEL != 0

    by = np.full(sus.count, BY_CALLBACK, np.int64)
    chosen = np.full(sus.count, -1, np.int64)

    def choose(mask: Bools, how: int, rows: Ints | None = None) -> None:
        by[mask] = how
        if rows is not None:
            chosen[mask] = rows[mask]

    # the last that fits
    choose((look.waker >= 0) & ~look.by_callback, BY_TASK)
    choose(by_thread, BY_THREAD)
    choose(look.by_callback & by_timer, BY_TIMER)
    choose((connected >= 0) & (received < 0), BY_CONNECT, connected)
    choose((written >= 0) & (received < 0), BY_WRITE, written)
    choose(accepted >= 0, BY_ACCEPT, accepted)
    choose(in_task, BY_RECV, own)
    choose(received >= 0, BY_RECV, received)
    receive = np.where(by == BY_RECV, chosen, -1)
    receive[ended] = told
    choose(look.chain.signalled(look.waker, look.wake, look.link) & (received < 0), BY_SIGNAL)
    none = np.full(sus.count, -1, np.int64)
    choose(cancelled, BY_CANCEL, none)
    choose(cancelled & by_timer, BY_TIMER, none)
    choose(sus.next_step < 0, BY_NOTHING, none)

    behind_reader = (hop | (wrapped & in_task)) & (by == BY_RECV)
    of_lost, doubtful, wakers_of_lost = wakes_of_lost(events, runs, calls, tasks)
    return Wakes(
        by=lean(by),
        root=lean(look.waker),
        root_ns=look.wake,
        link=lean(look.link),
        began=lean(np.where(behind_reader, look.behind, look.waker)),
        call=lean(chosen),
        call_run=lean(take(calls.run, chosen)),
        receive=lean(receive),
        sock=take(call["sock"], chosen, 0),
        in_task=in_task & (by == BY_RECV) & (received < 0),
        may_read=may_read & ~in_task,
        work=lean(work),
        kind=_kinds(look, by, take(call["sock"], chosen, 0)),
        of_lost=of_lost,
        doubtful=doubtful,
        wakers_of_lost=wakers_of_lost,
    )


def _over(events: Events, runs: Runs, run: Ints) -> Bools:
    """Say which runs are the last step of their task."""
    over: Bools = take(events["step"]["how"], take(runs.step, run), 0) > HOW_YIELD
    return over


def _told_work(events: Events, runs: Runs, run: Ints) -> Ints:
    """Return the row of `work` whose end a callback brings into the loop, -1 for none."""
    work = events["work"]
    told = take(events["callback"]["waker_run"], take(runs.callback, run), 0)
    found = Keys(work["agent"] << 32 | work["run"]).find(take(runs.agent, run, 0) << 32 | told)
    return np.where(told > 0, found, -1)


class _Chain:
    """Follow what made a task ready to its cause."""

    def __init__(self, events: Events, runs: Runs, calls: Calls, recvs: Index) -> None:
        call, step = events["syscall"], events["step"]
        self._runs, self._recvs = runs, recvs
        pipes = events.recvs[calls.self_pipe[events.recvs]]
        self._pipes = Index(calls.run[pipes], call["ts_ns"][pipes])
        is_step = runs.step >= 0
        self._task = np.where(
            is_step,
            take(runs.agent, np.arange(len(is_step))) << 32 | take(step["task"], runs.step),
            -1,
        )
        self._cancelled = (
            is_step & (take(step["how"], runs.step) == HOW_CANCELLED) & (runs.flags & CANCEL != 0)
        )

    def follow(self, run: Ints, when: Ints, cancelled: Bools) -> tuple[Ints, Ints, Ints]:
        """Return the cause, when it acted, and what it put on the ready queue (-1: the task).

        A callback that call_soon scheduled is passed through unless it received something itself;
        so is, on the way of a cancellation, the end of a cancelled task.
        """
        runs, run, when = self._runs, run.copy(), when.copy()
        link = np.full(len(run), -1, np.int64)
        rows = np.flatnonzero(take(runs.waker, run) >= 0)
        for _ in range(_MAX_LINKS):
            at = run[rows]
            passed = runs.is_callback(at) | (cancelled[rows] & self._cancelled[at])
            rows = rows[passed]
            rows = rows[self._recvs.before(run[rows], when[rows]) < 0]
            if not len(rows):
                break
            at = run[rows]
            link[rows], when[rows], run[rows] = at, runs.wake[at], runs.waker[at]
            rows = rows[runs.waker[run[rows]] >= 0]
        return run, when, link

    def root(self, sus: Suspensions) -> tuple[Ints, Ints, Ints]:
        """Follow each suspension; a task that woke itself through a callback is no cause."""
        cancelled = sus.next_flags & CANCEL != 0
        run, when, link = self.follow(sus.waker, sus.wake, cancelled)
        own = (link >= 0) & (take(self._task, run) == take(self._task, sus.run))
        return (
            np.where(own, sus.waker, run),
            np.where(own, sus.wake, when),
            np.where(own, -1, link),
        )

    def signalled(self, root: Ints, when: Ints, link: Ints) -> Bools:
        """Say where a signal handler's callback was scheduled: by the self-pipe's reader."""
        found: Bools = (link >= 0) & (self._pipes.before(root, when) >= 0)
        return found


def _asked_for(events: Events, sock: Ints, sus: Suspensions) -> Bools:
    """Say of each suspension whether an epoll began to watch a socket during it."""
    ctl = events["epoll_ctl"]
    began = np.flatnonzero((ctl["op"] == EPOLL_CTL_ADD) & (ctl["ret"] == 0) & (ctl["sock"] > 0))
    index = Index(ctl["sock"][began], ctl["ts_ns"][began])
    last = take(began, index.before(sock, sus.resume))
    return np.asarray((sock > 0) & (take(ctl["ts_ns"], last, -1) >= sus.begin))


def _is_of(kind: Ints, names: tuple[str, ...]) -> Bools:
    """Say which kinds, as indices into KINDS, are among those of these names."""
    return np.isin(kind, [KINDS.index(name) for name in names])


def _kinds(look: _Search, by: Ints, sock: Ints) -> Ints:
    """Return each suspension's kind: by evidence, else by what was awaited; the first that fits."""
    events, sus, leaf = look.events, look.sus, look.leaf
    # what asyncio calls the callback by which it came to the task tells more than its future
    through = np.where(look.link >= 0, take(look.runs.callback, sus.waker), -1)
    name = take(events["callback"]["name_str"], through, 0)
    behind_shield = events.passing(sus.agent, name, lambda text: text.startswith("shield."))
    of_child = events.passing(sus.agent, name, lambda text: text.endswith(_OF_CHILD))
    shielded = (by == BY_TASK) & look.over & behind_shield
    piped = is_pipe(sock)
    rules = (
        (np.isin(by, (BY_RECV, BY_WRITE, BY_CONNECT, BY_ACCEPT)) & ~piped, "socket"),
        (by == BY_SIGNAL, "signal"),
        (of_child, "subprocess"),
        (sus.how == HOW_YIELD, "yield"),
        (_is_of(leaf, ("lock", "event", "queue", "timer", "subprocess")), None),
        (by == BY_THREAD, "thread"),
        (np.isin(sus.how, (HOW_TASK, HOW_GATHER)) | shielded, "task"),
        (piped, "future"),  # of a stream on a pipe
    )
    kinds = leaf
    for fits, kind in reversed(rules):
        kinds = np.where(fits, leaf if kind is None else KINDS.index(kind), kinds)
    return kinds.astype(np.int8)
