"""Work that ran in a pool of processes: which worker, from when to when, by the kernel's events.

The executor's manager thread sleeps in poll until a worker writes a result; a worker reads a call,
runs it and writes the result. Both read as multiprocessing's connections do: a length of four
bytes, then so many. Where the manager did not have to sleep nobody woke it: the worker is unknown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tracer.correlate.index import Index, Ints, Keys, ints, take
from tracer.system.syscalls import NUMBER, POLLS

if TYPE_CHECKING:
    from tracer.correlate.picture import Picture

_POLLS = [*POLLS, NUMBER["epoll_wait"]]
# what the interpreter does between the two reads of a message: the GIL, memory
_BETWEEN = [NUMBER[name] for name in ("futex", "mmap", "munmap", "mremap")]
_LENGTH_BYTES = 4
NONE = -1


def ran_in_processes(p: Picture, works: Ints) -> tuple[Ints, Ints, Ints]:
    """Return the worker's tid, its begin and its end of each row of `work`; -1 where unknown."""
    call, off, thread = p.events["syscall"], p.events["off_cpu"], p.events["thread"]
    if not len(works):
        return works, works, works
    manager, told = _told(p, works)
    polls = np.flatnonzero(np.isin(off["nr"], _POLLS) & (off["waker_tid"] > 0))
    back = off["ts_ns"] + off["dur_ns"]
    sleep = take(polls, Index(off["tid"][polls], back[polls]).before(manager, told))
    worker, woken = take(off["waker_tid"], sleep), take(off["ts_ns"] + off["wake_ns"], sleep)
    tgid_at = Index(thread["tid"], thread["ts_ns"])
    abroad = take(thread["tgid"], tgid_at.before(worker, woken)) != take(
        thread["tgid"], tgid_at.before(manager, told)
    )
    known = (sleep >= 0) & abroad
    # between that sleep and its telling the loop it read one result: the one that woke it
    reader, read_at, read_end = _messages(p, np.concatenate([manager, worker]))
    arrivals = Index(reader, read_at)
    last = arrivals.before(manager, told)
    previous = arrivals.before(manager, take(read_at, last), strict=True)
    known &= take(read_at, last) >= take(back, sleep)
    known &= take(read_at, previous) < take(back, sleep)

    writes = np.flatnonzero(call["nr"] == NUMBER["write"])
    result = take(writes, Index(call["tid"][writes], call["ts_ns"][writes]).before(worker, woken))
    known &= (result >= 0) & (take(call["ts_ns"] + call["dur_ns"], result) >= woken)
    end = take(call["ts_ns"], result)
    same = Index(ints(call["tid"][writes]) << 32 | call["fd"][writes], call["ts_ns"][writes])
    before = take(writes, same.before(worker << 32 | take(call["fd"], result), end, strict=True))
    begin = take(read_end, arrivals.after(worker, take(call["ts_ns"] + call["dur_ns"], before, 0)))
    known &= (begin >= 0) & (begin <= end)
    tid, begin, end = (np.where(known, a, NONE) for a in (worker, begin, end))
    return tid, begin, end


def _told(p: Picture, works: Ints) -> tuple[Ints, Ints]:
    """Return which thread told the loop of each work's end, and when."""
    work, back = p.events["work"], p.events["callback"]
    at = Keys(back["agent"] << 32 | back["waker_run"]).find(
        work["agent"][works] << 32 | work["run"][works]
    )
    return take(back["wake_tid"], at), take(back["wake_ns"], at)


def _messages(p: Picture, tids: Ints) -> tuple[Ints, Ints, Ints]:
    """Return the messages that these threads read from pipes: thread, begin and end of reading."""
    call = p.events["syscall"]
    rows = np.flatnonzero(np.isin(call["tid"], tids) & ~np.isin(call["nr"], _BETWEEN))
    rows = rows[np.lexsort((call["ts_ns"][rows], call["tid"][rows]))]
    head, body = rows[:-1], rows[1:]
    pair = (call["ret"][head] == _LENGTH_BYTES) & (call["ret"][body] > 0)
    for column in ("tid", "fd", "nr"):
        pair &= call[column][head] == call[column][body]
    pair &= (call["nr"][head] == NUMBER["read"]) & (call["sock"][head] == 0)
    head, body = head[pair], body[pair]
    return call["tid"][head], call["ts_ns"][head], call["ts_ns"][body] + call["dur_ns"][body]
