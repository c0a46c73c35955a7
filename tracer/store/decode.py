"""Raw records to columns: numpy only, no Python loop per event."""

from __future__ import annotations

import socket as socketlib
from typing import TYPE_CHECKING, Any

import numpy as np

from tracer.events.header import load as load_header
from tracer.events.tables import stored_columns

if TYPE_CHECKING:
    from pathlib import Path

Columns = dict[str, Any]
_SLOT = 64
_DISCARDED = 0x40000000


def kernel_records(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Read drained ring slots; return record name -> structured array, unsorted.

    A slot cut off by a full disk or a kill is dropped; so are discarded ones.
    """
    count = path.stat().st_size // _SLOT if path.exists() else 0
    if not count:
        return {}
    slots = np.memmap(path, np.uint8, "r", shape=(count, _SLOT))
    lengths = slots[:, :4].copy().view("<u4")[:, 0]
    kinds = np.where(lengths & _DISCARDED, 0, slots[:, 8 + 14])
    return _split(slots[:, 8:], kinds)


def agent_slots(path: Path) -> bytes:
    """Return the drained records of an agent; one that a kill cut off is dropped."""
    data = path.read_bytes() if path.exists() else b""
    return data[: len(data) // _SLOT * _SLOT]


def agent_records(data: bytes) -> dict[str, np.ndarray[Any, Any]]:
    """Return an agent's records by name, unsorted."""
    slots = np.frombuffer(data, np.uint8).reshape(-1, _SLOT)
    return _split(slots, slots[:, 14]) if len(slots) else {}


def written_ns(rows: np.ndarray[Any, Any]) -> int:
    """Return when the last of these records was written: what lasts is written at its end."""
    names = rows.dtype.names or ()
    ends = rows["ts_ns"].astype(np.int64)
    if "dur_ns" in names:
        ends = ends + rows["dur_ns"].astype(np.int64)
    if "end_ns" in names:
        ends = np.maximum(ends, rows["end_ns"].astype(np.int64))
    return int(ends.max(initial=0))


def _split(
    bodies: np.ndarray[Any, Any], kinds: np.ndarray[Any, Any]
) -> dict[str, np.ndarray[Any, Any]]:
    found = {}
    for record in load_header().records.values():
        if record.kind is None:
            continue
        rows = np.flatnonzero(kinds == record.kind)
        if len(rows):
            found[record.name] = np.ascontiguousarray(bodies[rows]).view(record.dtype)[:, 0]
    return found


def texts(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return a byte-string column as str objects."""
    return np.array([b.decode("utf-8", "replace") for b in array.tolist()], dtype=object)


def columns_of(name: str, rows: np.ndarray[Any, Any]) -> Columns:
    """Return a record's stored columns, sorted by ts_ns (stable), with `id`; extras excluded."""
    rows = rows[np.argsort(rows["ts_ns"], kind="stable")]
    columns: Columns = {"id": np.arange(len(rows), dtype=np.int64)}
    for column in stored_columns(name):
        if column.name in (rows.dtype.names or ()):
            data = rows[column.name]
            columns[column.name] = (
                texts(data) if column.type == "VARCHAR" else data.astype(np.int64)
            )
    return columns


def epoll_fds(waits: np.ndarray[Any, Any], more: np.ndarray[Any, Any] | None) -> list[list[int]]:
    """Return the ready descriptors of each epoll_wait, in the waits' order by ts_ns."""
    waits = waits[np.argsort(waits["ts_ns"], kind="stable")]
    lists: list[list[int]] = [
        f[:n] for f, n in zip(waits["fds"].tolist(), waits["n"].tolist(), strict=True)
    ]
    if more is not None:
        where = {
            (t, ts): i
            for i, (t, ts) in enumerate(
                zip(waits["tid"].tolist(), waits["ts_ns"].tolist(), strict=True)
            )
        }
        for row in more[np.argsort(more["first"], kind="stable")]:
            at = where.get((int(row["tid"]), int(row["ts_ns"])))
            if at is not None:
                lists[at] += row["fds"][: int(row["n"])].tolist()
    return lists


def address6(raw: bytes) -> str:
    """Return the text of a 16-byte IPv6 address (numpy strips trailing zeros)."""
    return socketlib.inet_ntop(socketlib.AF_INET6, raw.ljust(16, b"\0"))


def strings_of(pieces: np.ndarray[Any, Any] | None) -> dict[int, str]:
    """Return the agent's interned strings by id; one without all of its pieces is none."""
    parts: dict[int, bytearray] = {}
    missing: dict[int, set[int]] = {}
    if pieces is not None:
        for row in pieces:
            whole = parts.setdefault(int(row["id"]), bytearray(int(row["len"])))
            text = bytes(row["text"])
            first = int(row["first"])
            whole[first : first + len(text)] = text
            size = row.dtype["text"].itemsize
            missing.setdefault(int(row["id"]), set(range(0, len(whole), size))).discard(first)
    return {
        key: bytes(value).decode("utf-8", "replace")
        for key, value in parts.items()
        if not missing[key]
    }
