"""Read a finalised trace's event tables as columns."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np

from tracer.correlate.index import Bools, Ints, Keys, ints
from tracer.events.tables import AGENT_TABLES, KERNEL_TABLES
from tracer.system import syscalls

if TYPE_CHECKING:
    from collections.abc import Callable

    from tracer.store.layout import TraceFolder

Table = dict[str, Any]


@dataclass
class Events:
    """All event tables of a trace: table -> column -> array, each sorted by ts_ns."""

    folder: TraceFolder
    manifest: dict[str, Any]
    tables: dict[str, Table] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Table:
        """Return a table's columns."""
        if name not in self.tables:
            self.tables[name] = _read(self.folder, name)
        return self.tables[name]

    @cached_property
    def strings(self) -> dict[tuple[int, int], str]:
        """Return the agents' interned texts by (agent, id)."""
        path = str(self.folder.table("string"))
        rows = duckdb.execute("SELECT agent, id, text FROM read_parquet(?)", [path])
        return {(a, i): text for a, i, text in rows.fetchall()}

    def texts(self, agent: Ints, ids: Ints) -> list[str]:
        """Return the text of each (agent, id), "" for 0 or a lost one."""
        strings = self.strings
        return [strings.get(pair, "") for pair in zip(agent.tolist(), ids.tolist(), strict=True)]

    def passing(self, agent: Ints, ids: Ints, test: Callable[[str], object]) -> Bools:
        """Say of each (agent, id) whether its text passes a test; a text is tested once."""
        unique, inverse = np.unique(agent << 32 | ids, return_inverse=True)
        texts = self.texts(unique >> 32, unique & 0xFFFFFFFF)
        passed: Bools = np.array([bool(test(text)) for text in texts], bool)[inverse.reshape(-1)]
        return passed

    @cached_property
    def _string_keys(self) -> Keys:
        return Keys(ints([agent << 32 | number for agent, number in self.strings]))

    def known(self, agent: Ints, ids: Ints) -> Ints:
        """Return a number for each text that the trace has, -1 for one that was lost."""
        return self._string_keys.find(agent << 32 | ids)

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


def _read(folder: TraceFolder, name: str) -> Table:
    if name not in KERNEL_TABLES + AGENT_TABLES:
        raise KeyError(name)
    path = str(folder.table(name))
    # the lists of ready descriptors are only wanted for single rows
    columns = "* EXCLUDE (fds)" if name == "epoll_wait" else "*"
    table = duckdb.execute(
        f"SELECT {columns} FROM read_parquet(?) ORDER BY id", [path]
    ).fetchnumpy()
    return {
        key: ints(np.ma.filled(value, 0)) if value.dtype.kind in "iu" else np.asarray(value)
        for key, value in table.items()
    }


@dataclass
class Runs:
    """Steps and callbacks together: what event loops ran.

    `step` and `callback` are row numbers in their tables, -1 for the other; `waker` is the run
    during which this one was put on the ready queue. Sorted by begin.
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
        agent=both["agent"],
        tid=both["tid"],
        begin=both["ts_ns"],
        end=both["end_ns"],
        wake=both["wake_ns"],
        wake_tid=both["wake_tid"],
        flags=both["flags"],
        step=np.where(order < nsteps, order, -1),
        callback=np.where(order >= nsteps, order - nsteps, -1),
        waker=waker,
        of_step=where[:nsteps],
        of_callback=where[nsteps:],
    )
