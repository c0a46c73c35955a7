"""The `setup` table: what an await did to have a connection: resolve a name, connect, shake hands.

Each part is proven by its own events; what has none is not there:

- resolve: the work that the await's step gave to an executor, a function `getaddrinfo`; from the
  worker's begin to its end (`loop.getaddrinfo`, Lib/asyncio/base_events.py);
- connect: a connect call in the await's step; from its entry to the end of SYN_SENT
  (inet_sock_set_state). Where no such change was recorded and the call did not succeed at once,
  its end is not known;
- handshake: from the first call of do_handshake on a TLS object to the end of the last, in whatever
  does it: asyncio's and uvloop's own TLS, a library in memory (anyio), an ssl.SSLSocket. It is the
  await's if its own step made the first call; or if that was in the callback which the await's step
  put on the ready queue before it parked in `create_connection`, `start_tls` or a server's accept
  (Lib/asyncio/sslproto.py); or in libuv's news of the connection, which let the task go on to wait
  for the handshake (create_connection in uvloop/loop.pyx). One that no call ended (the peer left,
  it was cancelled) lasts until the task's waking. It is told where it began, though the task may
  go on with it in further awaits.

A name that libuv resolves (on uvloop) leaves no such trace.

The set-up of a task is also that of the await in which another task waited for its end alone
(wait_for before CPython 3.12, aiohttp's resolver, anyio's group of the one task that connects);
not where it waited for all of several (gather, groups, asyncio.wait).
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

import numpy as np

from tracer.correlate.events import CANCEL, FAILED, SHAKE_FAILED, SHAKE_OVER, THROWN
from tracer.correlate.gaps import touched
from tracer.correlate.index import Bools, Index, Ints, Keys, ints, sum_by, take
from tracer.correlate.tasks import HOW_YIELD
from tracer.correlate.wakes import BY_CANCEL, BY_TASK
from tracer.system.syscalls import NUMBER

if TYPE_CHECKING:
    from tracer.correlate.picture import Picture

# include/net/tcp_states.h
_ESTABLISHED, _SYN_SENT = 1, 2
_PARKED_IN = ("_create_connection_transport", "start_tls", "_accept_connection2")
_IDS = ("work_id", "handshake_id", "call_id", "last_call_id", "state_id")
_MOST_TASKS = 16  # that wait for each other
_SEVERAL = ("gather.", "TaskGroup.", "_wait.<locals>.")  # done callbacks of asyncio, anyio
_RESULT, _EXCEPTION, _CANCELLED, _OPEN = range(4)
_OUTCOMES = np.array(["result", "exception", "cancelled", "open"], object)
_Columns = dict[str, Any]


def setup_rows(p: Picture, await_id: Ints) -> _Columns:
    """Return the table's columns, sorted by await and begin; -1 where unknown.

    Args:
        p: the trace, with all its awaits.
        await_id: the id of each await.

    """
    found = [_resolved(p), _connected(p), _shaken(p)]
    columns = {name: np.concatenate([part[name] for part in found]) for name in found[0]}
    columns = _with_waiting(p, columns)
    columns["await_id"] = await_id[p.sus.group[columns.pop("sus")]]
    columns["outcome"] = _OUTCOMES[columns["outcome"]]
    order = np.lexsort((columns["start_ns"], columns["await_id"]))
    return {name: values[order] for name, values in columns.items()}


def _part(p: Picture, what: str, sus: Ints, start: Ints, end: Ints, **more: Ints) -> _Columns:
    """Return columns; an end of -1 is not known, nor is what is not given."""
    unknown = np.full(len(sus), -1, np.int64)
    return {
        "sus": sus,
        "task_id": ints(p.sus.task[sus]),
        "what": np.full(len(sus), what, object),
        "outcome": more.get("outcome", np.zeros(len(sus), np.int64)),
        "start_ns": start,
        "dur_ns": np.where(end >= 0, end - start, -1),
        **{name: ints(more.get(name, unknown)) for name in _IDS},
    }


def _outcomes(p: Picture, sus: Ints) -> Ints:
    """Return how suspensions ended, as indices into _OUTCOMES."""
    flags = p.sus.next_flags[sus]
    outcome = np.where(flags & (FAILED | THROWN) != 0, _EXCEPTION, _RESULT)
    outcome[flags & CANCEL != 0] = _CANCELLED
    outcome[p.sus.next_step[sus] < 0] = _OPEN
    return outcome


def _resolved(p: Picture) -> _Columns:
    work, sus = p.events["work"], p.sus
    named = p.events.passing(work["agent"], work["name_str"], lambda name: name == "getaddrinfo")
    rows = np.flatnonzero(named & (work["end_ns"] > 0))
    task, given = p.tasks.find(work["agent"][rows], work["task"][rows]), work["wake_ns"][rows]
    at = Index(sus.task, sus.begin).before(task, given)
    fits = (task > 0) & (at >= 0) & (take(sus.parked, at) >= given)
    rows, at = rows[fits], at[fits]
    return _part(p, "resolve", at, work["ts_ns"][rows], work["end_ns"][rows], work_id=rows)


def _connected(p: Picture) -> _Columns:
    call, state = p.events["syscall"], p.events["socket_state"]
    rows = np.flatnonzero((call["nr"] == NUMBER["connect"]) & (call["sock"] > 0))
    at = Keys(p.sus.run).find(p.calls.run[rows])
    rows, at = rows[at >= 0], at[at >= 0]
    begin, ret = call["ts_ns"][rows], call["ret"][rows]
    sent = Index(np.where(state["oldstate"] == _SYN_SENT, state["sock"], -1), state["ts_ns"])
    left = sent.after(call["sock"][rows], begin)
    end = np.where(left >= 0, take(state["ts_ns"], left), begin + call["dur_ns"][rows])
    end[(left < 0) & (ret == -errno.EINPROGRESS)] = -1
    outcome = _outcomes(p, at)
    outcome[(left >= 0) & (outcome == _RESULT)] = _EXCEPTION
    outcome[(ret < 0) & (ret != -errno.EINPROGRESS)] = _EXCEPTION
    outcome[(ret == 0) | (take(state["newstate"], left) == _ESTABLISHED)] = _RESULT
    return _part(p, "connect", at, begin, end, outcome=outcome, call_id=rows, state_id=left)


def _shaken(p: Picture) -> _Columns:
    shake, call, sus = p.events["handshake"], p.events["syscall"], p.sus
    key = shake["agent"] << 32 | shake["tls"]
    order = np.lexsort((shake["ts_ns"], key))
    fresh = np.diff(key[order], prepend=-1) != 0
    first, last = order[fresh], order[np.append(fresh[1:], fresh[:1])]
    runs = _runs(p, shake["agent"], shake["run"])
    run, last_run = runs[first], runs[last]
    at, own = _shaking(p, run)
    its = at >= 0
    first, last, run, last_run = (rows[its] for rows in (first, last, run, last_run))
    at, own = at[its], own[its]
    left = np.where(own, Keys(sus.run).find(last_run), at)
    flags = shake["flags"][last]
    outcome = _outcomes(p, left)
    outcome[(outcome == _RESULT) | (left < 0) | (flags & SHAKE_FAILED != 0)] = _EXCEPTION
    outcome[flags & SHAKE_OVER != 0] = _RESULT
    end = np.where(outcome == _OPEN, -1, take(sus.wake, left))
    told = (flags != 0) | (left < 0)
    end[told] = shake["end_ns"][last[told]]
    sends = p.calls.sends
    sent = Index(sends.run, call["ts_ns"][sends.row])
    into = np.where(last_run != run, Keys(sus.next_run).find(last_run), -1)
    return _part(
        p,
        "handshake",
        at,
        shake["ts_ns"][first],
        end,
        outcome=outcome,
        handshake_id=first,
        call_id=take(sends.row, sent.after(run, shake["ts_ns"][first])),
        last_call_id=take(p.wakes.receive, np.where(own, into, at)),
    )


def _runs(p: Picture, agent: Ints, serial: Ints) -> Ints:
    """Return the run of each serial, of a step or a callback; -1 for none."""
    found = np.full(len(serial), -1, np.int64)
    for table, of in (("step", p.runs.of_step), ("callback", p.runs.of_callback)):
        known = p.events[table]
        at = take(of, Keys(known["agent"] << 32 | known["run"]).find(agent << 32 | serial))
        found = np.where(at >= 0, at, found)
    return found


def _shaking(p: Picture, run: Ints) -> tuple[Ints, Bools]:
    """Return whose handshakes began in these runs, and whether the await's own step does them."""
    step, sus = p.events["step"], p.sus
    own = Keys(sus.run).find(run)
    made = Keys(sus.run).find(take(p.runs.waker, run))
    leaf, agent = take(step["leaf_str"], take(sus.step, made), 0), take(sus.agent, made, 0)
    waits = p.events.passing(agent, leaf, lambda text: text.endswith(_PARKED_IN))
    woken = Keys(sus.waker).find(run)
    after = Keys(sus.run).find(take(sus.next_run, woken))
    by_libuv = (made < 0) & (after >= 0) & (take(sus.group, after) == take(sus.group, woken))
    at = np.where(by_libuv, after, np.where(waits, made, -1))
    return np.where(own >= 0, own, at), own >= 0


def _is_of_several(name: str) -> bool:
    return any(part in name for part in _SEVERAL)


def _makers(p: Picture) -> Ints:
    """Return for each row of `task` the number of the await whose own step made it, else -1."""
    step, task = p.events["step"], p.events["task"]
    maker = Keys(step["agent"] << 32 | step["run"]).find(task["agent"] << 32 | task["run"])
    return take(p.sus.group, Keys(p.sus.run).find(take(p.runs.of_step, maker)))


def _with_waiting(p: Picture, columns: _Columns) -> _Columns:
    """Return the columns with those of each task for the await of a task that waited for it."""
    sus, step, made_by = p.sus, p.events["step"], _makers(p)
    children = sum_by(made_by, np.ones(len(made_by), np.int64), sus.groups)
    waiting = np.flatnonzero(np.isin(p.wakes.by, (BY_TASK, BY_CANCEL)))
    last = take(p.runs.step, p.wakes.root[waiting])
    task, group = p.tasks.find(step["agent"][last], step["task"][last]), sus.group[waiting]
    through = np.where(p.wakes.link[waiting] >= 0, sus.waker[waiting], -1)
    name = take(p.events["callback"]["name_str"], take(p.runs.callback, through), 0)
    several = p.events.passing(sus.agent[waiting], name, _is_of_several)
    # the record of another one's birth may be among what was lost
    only = (children[group] == 1) & ~touched(p.events, sus.row_begin[waiting], sus.resume[waiting])
    alone = (take(step["how"], last, 0) > HOW_YIELD) & (~several | only)
    # anyio cancels who waits in a group, in the last step of the group's task
    alone &= (p.wakes.by[waiting] == BY_TASK) | (take(made_by, p.tasks.row[task]) == group)
    waiting, task = waiting[alone], task[alone]
    waits_for = np.full(p.tasks.count + 1, -1, np.int64)
    waits_for[task] = waiting
    every = [columns]
    for _ in range(_MOST_TASKS):
        above = waits_for[sus.task[every[-1]["sus"]]]
        inside = (above >= 0) & (take(sus.row_begin, above) <= every[-1]["start_ns"])
        if not inside.any():
            break
        every.append({n: v[inside] for n, v in every[-1].items()} | {"sus": above[inside]})
    return {name: np.concatenate([part[name] for part in every]) for name in columns}
