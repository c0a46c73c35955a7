"""Whose each system call is: its process, agent, run and task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tracer.correlate.index import Bools, Index, Ints, lean, take
from tracer.correlate.writes import Owned, sends_of
from tracer.system import syscalls

if TYPE_CHECKING:
    from tracer.correlate.events import Events, Runs
    from tracer.correlate.tasks import Tasks
    from tracer.correlate.writes import Sends

EPOLL_CTL_ADD = 1  # include/uapi/linux/eventpoll.h


@dataclass
class Calls:
    """Every row of `syscall` with the run and the task that made it (-1, 0: none).

    `recvs` are the rows that took bytes from a socket other than a loop's self-pipe, `sends` what
    was put on one, and by whom.
    """

    run: Ints
    task: Ints
    agent: Ints
    tgid: Ints
    self_pipe: Bools
    sends: Sends
    recvs: Ints


class Owners:
    """Whose what happened on a thread is."""

    def __init__(self, events: Events, runs: Runs, tasks: Tasks) -> None:
        """Name the trace."""
        self._step, self._runs, self._tasks = events["step"], runs, tasks

    def of(self, tid: Ints, ts: Ints, agent: Ints, serial: Ints) -> Owned:
        """Return whose each moment is.

        Args:
            tid: its thread.
            ts: its time, ns.
            agent: the agent of its process.
            serial: the stamp: the running task (ev_task.task), 0 none.

        """
        run = self._runs.containing(tid, ts)
        # a run says whose it is; without one, the process does, if the record of its birth is there
        agent = np.where(run >= 0, take(self._runs.agent, run), agent)
        known = np.maximum(agent, 0)
        stamp = self._tasks.find(known, np.where(agent >= 0, serial, 0))
        by_run = self._tasks.find(known, take(self._step["task"], take(self._runs.step, run), 0))
        # the step of an eager task within this one was lost: its calls are not the outer task's
        run = np.where((stamp > 0) & (by_run > 0) & (stamp != by_run), -1, run)
        return Owned(agent, run, np.where(stamp > 0, stamp, by_run))


def calls_of(events: Events, runs: Runs, tasks: Tasks) -> Calls:
    """Find each call's process, agent, run and task."""
    call, thread = events["syscall"], events["thread"]
    tid, ts = call["tid"], call["ts_ns"]
    tgids_of = Index(thread["tid"], thread["ts_ns"])
    tgid = take(thread["tgid"], tgids_of.before(tid, ts))
    infos = events.manifest["agents"]
    alive = [n for n, info in enumerate(infos) if info["mode"] != "none"]
    starts = np.array([infos[n]["start_ns"] for n in alive], np.int64)
    tgids = np.array([infos[n]["tgid"] for n in alive], np.int64)
    agents = Index(tgids, starts)
    by_process = take(np.array(alive, np.int64), agents.before(tgid, ts))
    owners = Owners(events, runs, tasks)
    called = owners.of(tid, ts, by_process, call["task"])
    ctl = events["epoll_ctl"]
    ctl_tgid = take(thread["tgid"], tgids_of.before(ctl["tid"], ctl["ts_ns"]))
    ctl_agent = take(np.array(alive, np.int64), agents.before(ctl_tgid, ctl["ts_ns"]))
    pipe = _self_pipe_calls(events, called.agent, ctl_agent)
    return Calls(
        run=lean(called.run),
        task=lean(called.task),
        agent=lean(called.agent),
        tgid=lean(tgid),
        self_pipe=pipe,
        sends=sends_of(events, events.sends[~pipe[events.sends]], called, owners),
        recvs=events.recvs[~pipe[events.recvs]],
    )


def _self_pipe_calls(events: Events, agent: Ints, ctl_agent: Ints) -> Bools:
    """Say which calls use a loop's self-pipe while it is one.

    From when the loop began to watch it until its descriptor was closed: then the number is
    another file's.
    """
    call, loop, ctl = events["syscall"], events["loop"], events["epoll_ctl"]
    adds = np.flatnonzero(ctl["op"] == EPOLL_CTL_ADD)
    added = Index(ctl_agent[adds] << 32 | ctl["fd"][adds], ctl["ts_ns"][adds])
    seen = loop["ts_ns"]
    watched = take(
        ctl["ts_ns"], take(adds, added.before(loop["agent"] << 32 | loop["self_fd"], seen))
    )
    since = np.where(watched >= 0, watched, seen)
    has = np.flatnonzero(call["fd"] >= 0)
    key = agent[has] << 32 | call["fd"][has]
    closes = has[call["nr"][has] == syscalls.NUMBER["close"]]
    closed = Index(agent[closes] << 32 | call["fd"][closes], call["ts_ns"][closes])
    known = np.concatenate([loop["self_fd"], loop["self_wfd"]]) >= 0
    ends = np.concatenate([loop["agent"] << 32 | loop[fd] for fd in ("self_fd", "self_wfd")])[known]
    begin = np.concatenate([since, since])[known]
    until = take(call["ts_ns"], take(closes, closed.after(ends, begin)), 1 << 62)
    at = Index(ends, begin).before(key, call["ts_ns"][has])
    pipe = np.zeros(len(agent), bool)
    pipe[has] = (at >= 0) & (call["ts_ns"][has] <= take(until, at))
    return pipe
