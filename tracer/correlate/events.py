"""Read a finalised trace's event tables as columns."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np

from tracer.correlate.index import Bools, Index, Ints, Keys, distinct, ints, lean, take
from tracer.events.header import load as load_header
from tracer.events.tables import AGENT_TABLES, KERNEL_TABLES, stored_columns
from tracer.system import syscalls

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tracer.store.layout import TraceFolder

_NARROW = np.iinfo(np.int32)
# record.h: RUN_*
TIMER, THROWN, EAGER, CANCEL, FAILED, FROM_THREAD = 1, 2, 4, 8, 16, 32
SHAKE_OVER, SHAKE_FAILED = 1, 2  # HANDSHAKE_*


class Table:
    """A table's columns in order of its ids; each is read when it is first asked for, and kept.

    A column of u64 or of agents is 64 bits wide, another one 32 if that holds it: arithmetic on
    such needs a 64-bit operand (times, `take`) or an explicit one.
    """

    def __init__(self, path: Path, name: str) -> None:
        """Name the table; nothing is read yet."""
        self._path, self._name = path, name
        self._columns: dict[str, Any] = {}
        wide = {c.name for c in load_header().records[name].columns if c.ctype == "u64"}
        self._wide = wide | {"agent"}

    def __getitem__(self, column: str) -> Any:  # noqa: ANN401 (numbers or texts)
        """Return a column; KeyError if the table has none of this name."""
        if column not in self._columns:
            self._columns[column] = self._read(column)
        return self._columns[column]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self["ts_ns"])

    def forget(self, *columns: str) -> None:
        """Free these columns, or all; one is read again when it is asked for again."""
        for column in columns or tuple(self._columns):
            self._columns.pop(column, None)

    def _read(self, column: str) -> Any:  # noqa: ANN401
        if column not in {c.name for c in stored_columns(self._name)}:
            raise KeyError(column)
        found = duckdb.execute(f'SELECT "{column}" FROM read_parquet(?)', [str(self._path)])
        values = found.fetchnumpy()[column]
        if values.dtype.kind not in "iu":
            return np.asarray(values)
        values = ints(np.ma.filled(values, 0))
        if column in self._wide or not len(values):
            return values
        fits = _NARROW.min <= values.min() and values.max() <= _NARROW.max
        return values.astype(np.int32) if fits else values


@dataclass
class Events:
    """All event tables of a trace, each sorted by ts_ns."""

    folder: TraceFolder
    manifest: dict[str, Any]
    tables: dict[str, Table] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Table:
        """Return a table's columns."""
        if name not in self.tables:
            if name not in KERNEL_TABLES + AGENT_TABLES:
                raise KeyError(name)
            self.tables[name] = Table(self.folder.table(name), name)
        return self.tables[name]

    @cached_property
    def _strings(self) -> tuple[Keys, Any]:
        """Return the agents' interned texts, and an empty one behind them."""
        path = str(self.folder.table("string"))
        rows = duckdb.execute("SELECT agent << 32 | id, text FROM read_parquet(?)", [path])
        found = rows.fetchall()
        texts = np.array([text for _key, text in found] + [""], object)
        return Keys(ints([key for key, _text in found])), texts

    def texts(self, agent: Ints, ids: Ints) -> Any:  # noqa: ANN401
        """Return the text of each (agent, id), "" for 0 or a lost one."""
        return self._strings[1][self.known(agent, ids)]

    def numbers(self, agent: Ints, ids: Ints, number: Callable[[str], int]) -> Ints:
        """Return a number for each text of (agent, id); each different text is looked at once."""
        return ints([number(text) for text in self._strings[1]])[self.known(agent, ids)]

    def passing(self, agent: Ints, ids: Ints, test: Callable[[str], object]) -> Bools:
        """Say of each (agent, id) whether its text passes a test; a text is tested once."""
        return self.numbers(agent, ids, lambda text: bool(test(text))) > 0

    def known(self, agent: Ints, ids: Ints) -> Ints:
        """Return a number for each text that the trace has, -1 for one that was lost."""
        return self._strings[0].find(agent << 32 | ids)

    @cached_property
    def sends(self) -> Ints:
        """Return the rows of `syscall` that put bytes on a socket, in order of time."""
        call = self["syscall"]
        is_send = np.isin(call["nr"], list(syscalls.SENDS))
        return np.flatnonzero(is_send & (call["sock"] > 0) & (call["ret"] > 0))

    @cached_property
    def recvs(self) -> Ints:
        """Return the rows of `syscall` that took bytes (or the end) from a socket."""
        call = self["syscall"]
        is_recv = np.isin(call["nr"], list(syscalls.RECVS))
        return np.flatnonzero(is_recv & (call["sock"] > 0) & (call["ret"] >= 0))


@dataclass
class Runs:
    """Steps and callbacks together: what event loops ran.

    `step` and `callback` are row numbers in their tables, -1 for the other (a callback of libuv's
    own has no row, see native.py); `waker` is the run during which this one was put on the ready
    queue. Sorted by begin.
    """

    agent: Ints
    tid: Ints
    begin: Ints
    end: Ints
    wake: Ints
    wake_tid: Ints
    flags: Ints
    step: Ints
    callback: Ints
    waker: Ints
    of_step: Ints
    of_callback: Ints

    def is_callback(self, run: Ints) -> Bools:
        """Say which runs are no steps; -1 is none."""
        return np.asarray((run >= 0) & (take(self.step, run) < 0))

    def containing(self, tid: Ints, ts: Ints) -> Ints:
        """Return the innermost run of the thread around each moment, -1 for none."""
        found = Index(self.tid, self.begin).before(tid, ts)
        while len(over := np.flatnonzero((found >= 0) & (take(self.end, found) < ts))):
            found[over] = take(self._outer, found[over])
        return found

    @cached_property
    def _outer(self) -> Ints:
        """Return the run that each run lies in, -1 for none.

        An eager task's first step lies in the step that created it. A loop that is run inside a
        callback of another one, or of itself (nest_asyncio), runs any number of callbacks there.
        """
        outer = np.full(len(self.begin), -1, np.int64)
        for thread in distinct(ints(self.tid)).tolist():
            mine = np.flatnonzero(self.tid == thread)
            begin, end = self.begin[mine], self.end[mine]
            reach = np.maximum.accumulate(end)
            nested = 1 + np.flatnonzero(reach[:-1] > begin[1:])
            # the run before it, and while that is over by then, the one to be asked after that
            asked = np.arange(-1, len(mine) - 1)
            over = nested[end[asked[nested]] <= begin[nested]]
            while len(over):
                asked[over] = asked[asked[over]]
                over = over[end[asked[over]] <= begin[over]]
            outer[mine[nested]] = mine[asked[nested]]
        return outer


def runs_of(events: Events) -> Runs:
    """Join steps and callbacks and resolve their wake edges."""
    step, back = events["step"], events["callback"]
    both = {
        key: np.concatenate([step[key], back[key]])
        for key in ("agent", "tid", "ts_ns", "end_ns", "wake_ns", "wake_tid", "flags", "run")
    }
    waker_run = np.concatenate([step["waker_run"], back["waker_run"]])
    nsteps, nbacks = len(step["ts_ns"]), len(back["ts_ns"])
    order = np.argsort(both["ts_ns"], kind="stable")
    both = {key: value[order] for key, value in both.items()}
    key = both["agent"] << 32 | both["run"]
    wanted = both["agent"] << 32 | waker_run[order]
    waker = np.where(waker_run[order] > 0, Keys(key).find(wanted), -1)
    where = np.empty(nsteps + nbacks, np.int64)
    where[order] = np.arange(nsteps + nbacks)
    return Runs(
        agent=lean(both["agent"]),
        tid=both["tid"],
        begin=both["ts_ns"],
        end=both["end_ns"],
        wake=both["wake_ns"],
        wake_tid=both["wake_tid"],
        flags=both["flags"],
        step=lean(np.where(order < nsteps, order, -1)),
        callback=lean(np.where(order >= nsteps, order - nsteps, -1)),
        waker=lean(waker),
        of_step=lean(where[:nsteps]),
        of_callback=lean(where[nsteps:]),
    )
