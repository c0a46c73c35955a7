"""The `await_syscall` table: what an await's own steps and its receives did besides networking.

An await's own steps are those that end in one of its suspensions: the one in which the task parked
and, of an await of several trips, those between. The step that begins with the result belongs to
the task's next await, a task's last step to none. Its receives are the callbacks in which bytes
came for it, or in which its task was made ready by a receive, a send or an accept. What such a
callback did counts for each await that it served, as its bytes do (recv_shared).

Hidden is every call on no socket that has a row in `syscall`: those that the probes record always
(syscalls.py; asyncio's receive buffer may mmap, mremap and munmap on every receive), and any other
that took a millisecond. epoll_wait is the loop's, epoll_ctl has a table of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tracer.correlate.index import distinct, ints, spans, sum_by, take

if TYPE_CHECKING:
    from tracer.correlate.awaits import Loose
    from tracer.correlate.index import Ints
    from tracer.correlate.picture import Picture

_NR_BITS = 16  # ev_syscall.nr


def hidden_rows(p: Picture, loose: Loose, await_id: Ints) -> dict[str, Any]:
    """Return the table's columns, sorted by await and number of the call.

    Args:
        p: the trace, with all its awaits.
        loose: its rows without a task; the first is await number p.sus.groups.
        await_id: the id of each await.

    """
    call = p.events["syscall"]
    rows = np.flatnonzero((call["sock"] == 0) & (p.calls.run >= 0))
    run = p.calls.run[rows]
    rows = rows[np.argsort(run, kind="stable")]
    count = np.bincount(run, minlength=len(p.runs.begin))
    first = np.cumsum(count) - count
    owner, of = np.divmod(_pairs(p, loose, count), max(len(count), 1))
    which = rows[spans(first[of], first[of] + count[of])]
    key = np.repeat(await_id[owner], count[of]) << _NR_BITS | call["nr"][which]
    found = distinct(key)
    at = np.searchsorted(found, key)
    columns = {
        "await_id": found >> _NR_BITS,
        "nr": found & ((1 << _NR_BITS) - 1),
        "count": ints(np.bincount(at, minlength=len(found))),
        "dur_ns": sum_by(at, ints(call["dur_ns"][which]), len(found)),
    }
    call.forget("nr")
    return columns


def _pairs(p: Picture, loose: Loose, count: Ints) -> Ints:
    """Return the different pairs of an await and a run of its, as one number each.

    Args:
        p: see hidden_rows.
        loose: see hidden_rows.
        count: how many hidden calls each run has; runs without any are left out.

    """
    sus, calls, receipts = p.sus, p.calls, p.receipts
    run = np.concatenate(
        [
            p.wakes.call_run,
            calls.run[receipts.served_call],
            loose.run[: loose.known],
        ]
    )
    owner = np.concatenate(
        [sus.group, sus.group[receipts.served], sus.groups + np.arange(loose.known)]
    )
    in_callback = p.runs.is_callback(run)
    run = np.concatenate([sus.run, run[in_callback]])
    owner = np.concatenate([sus.group, owner[in_callback]])
    some = take(count, run, 0) > 0
    return distinct(ints(owner[some]) * len(count) + run[some])
