"""Raw records to columns: numpy only, no Python loop per event."""

from __future__ import annotations

import contextlib
import socket as socketlib
from typing import TYPE_CHECKING, Any

import numpy as np

from tracer.events.header import load as load_header
from tracer.events.tables import stored_columns
from tracer.store.layout import reading

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Columns = dict[str, Any]
Rows = np.ndarray[Any, Any]
_SLOT = 64
_HEAD = 8  # of a slot of the kernel's ring: length and page offset
_KIND = 14
_BLOCK = 1 << 18  # slots that are read at once
_DISCARDED = 0x40000000


def kernel_records(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Read drained ring slots; return record name -> structured array, unsorted.

    A slot cut off by a full disk or a kill is dropped; so are discarded ones.
    """
    if not path.exists():
        return {}
    counts = sum(
        (np.bincount(_kinds(slots), minlength=256) for slots in _blocks(path)),
        np.zeros(256, np.int64),
    )
    records = {
        record.kind: np.empty(counts[record.kind], record.dtype)
        for record in load_header().records.values()
        if record.kind is not None and counts[record.kind]
    }
    filled = dict.fromkeys(records, 0)
    for slots in _blocks(path):
        kinds = _kinds(slots)
        for kind, rows in records.items():
            found = slots[kinds == kind, _HEAD:]
            first = filled[kind]
            filled[kind] += len(found)
            rows[first : filled[kind]] = found.view(rows.dtype)[:, 0]
    return {load_header().by_kind(kind).name: rows for kind, rows in records.items()}


def _blocks(path: Path) -> Iterator[np.ndarray[Any, np.dtype[np.uint8]]]:
    """Give a file's whole slots, so many at a time: it may be larger than the memory."""
    with reading(path) as file:
        while len(slots := np.fromfile(file, np.uint8, _BLOCK * _SLOT)) >= _SLOT:
            yield slots[: len(slots) // _SLOT * _SLOT].reshape(-1, _SLOT)


def _kinds(slots: np.ndarray[Any, np.dtype[np.uint8]]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return the kind of each slot of the kernel's ring, 0 for a discarded one."""
    lengths = slots[:, :4].copy().view("<u4")[:, 0]
    return np.where(lengths & _DISCARDED, 0, slots[:, _HEAD + _KIND]).astype(np.uint8)


def agent_slots(path: Path) -> bytes:
    """Return the drained records of an agent; one that a kill cut off is dropped."""
    if not path.exists():
        return b""
    with reading(path) as file:
        data = file.read()
    return data[: len(data) // _SLOT * _SLOT]


def agent_records(data: bytes) -> dict[str, Rows]:
    """Return an agent's records by name, unsorted."""
    slots = np.frombuffer(data, np.uint8).reshape(-1, _SLOT)
    kinds = slots[:, _KIND]
    found = {}
    for kind in np.flatnonzero(np.bincount(kinds, minlength=1)).tolist():
        with contextlib.suppress(KeyError):  # a kind that record.h does not have
            record = load_header().by_kind(kind)
            found[record.name] = slots[kinds == kind].view(record.dtype)[:, 0]
    return found


def written_ns(rows: np.ndarray[Any, Any]) -> int:
    """Return when the last of these records was written: what lasts is written at its end."""
    names = rows.dtype.names or ()
    ends = rows["ts_ns"].astype(np.int64)
    if "dur_ns" in names:
        ends = ends + rows["dur_ns"].astype(np.int64)
    if "end_ns" in names:
        ends = np.maximum(ends, rows["end_ns"].astype(np.int64))
    return int(ends.max(initial=0))


def texts(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return a byte-string column as str objects."""
    return np.array([b.decode("utf-8", "replace") for b in array.tolist()], dtype=object)


def sorted_by_time(rows: Rows) -> Rows:
    """Return records in order of ts_ns; those of the same moment keep their order."""
    return rows[np.argsort(rows["ts_ns"], kind="stable")]


def columns_of(name: str, rows: Rows) -> Columns:
    """Return the stored columns of sorted records, and `id`; extras excluded.

    Numbers are views of the records: nothing is copied.
    """
    columns: Columns = {"id": np.arange(len(rows), dtype=np.int64)}
    for column in stored_columns(name):
        if column.name in (rows.dtype.names or ()) and rows[column.name].ndim == 1:
            data = rows[column.name]
            if column.type == "VARCHAR":
                data = texts(data)
            elif data.dtype == np.uint64:
                data = data.view(np.int64)
            columns[column.name] = data
    return columns


def further_fds(more: Rows) -> Columns:
    """Return the descriptors that did not fit into the epoll_waits' own records, a row for each.

    `tid` and `ts_ns` name the wait, `place` is the descriptor's place in it.
    """
    counts = np.minimum(more["n"], more["fds"].shape[1]).astype(np.int64)
    row = np.repeat(np.arange(len(more)), counts)
    nth = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    return {
        "tid": more["tid"][row],
        "ts_ns": more["ts_ns"][row].view(np.int64),
        "place": more["first"][row] + nth,
        "fd": more["fds"][row, nth],
    }


def address6(raw: bytes) -> str:
    """Return the text of a 16-byte IPv6 address (numpy strips trailing zeros)."""
    return socketlib.inet_ntop(socketlib.AF_INET6, raw.ljust(16, b"\0"))


def strings_of(pieces: np.ndarray[Any, Any] | None) -> dict[int, str]:
    """Return the agent's interned strings by id; one without all of its pieces is none."""
    found: dict[int, tuple[int, dict[int, bytes]]] = {}
    for row in () if pieces is None else pieces:
        _length, parts = found.setdefault(int(row["id"]), (int(row["len"]), {}))
        parts[int(row["first"])] = bytes(row["text"]).ljust(row.dtype["text"].itemsize, b"\0")
    texts = {}
    for key, (length, parts) in found.items():
        whole = b"".join(parts[first] for first in sorted(parts))
        size = len(whole) // len(parts)
        if len(whole) >= length and parts.keys() == set(range(0, max(length, 1), size)):
            texts[key] = whole[:length].decode("utf-8", "replace")
    return texts
