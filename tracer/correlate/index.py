"""Nearest-neighbour look-ups within groups, vectorised.

All arrays are one-dimensional int64. A result is a row number of the indexed arrays, -1 for none.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
NONE = -1
_FEW = 1024
_ROOM = 1 << 62


def ints(values: npt.ArrayLike) -> Ints:
    """Return an int64 array."""
    return np.asarray(values, dtype=np.int64)


def lean(values: Ints) -> Ints:
    """Return the numbers 32 bits wide if that holds them: for what is kept, not computed with."""
    fits = not len(values) or (values.min() >= -(1 << 31) and values.max() < 1 << 31)
    return values.astype(np.int32) if fits else values


def of_rows(record: object, rows: Ints, *, whole: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return a dataclass's arrays at some rows, all but those that are no columns."""
    columns = {f.name: getattr(record, f.name) for f in fields(record)}  # type: ignore[arg-type]
    return {
        name: values[rows]
        for name, values in columns.items()
        if isinstance(values, np.ndarray) and name not in whole
    }


def spans(start: Ints, end: Ints) -> Ints:
    """Return start[0]..end[0]-1, start[1]..end[1]-1, ... as one array."""
    length = np.maximum(end - start, 0)
    return np.repeat(start - np.cumsum(length) + length, length) + np.arange(length.sum())


def take(values: Ints, at: Ints, missing: int = NONE) -> Ints:
    """Return values[at], `missing` where at is -1; 64 bits wide."""
    if not len(values):
        return np.full(len(at), missing, np.int64)
    found = values.take(at, mode="clip").astype(np.int64)
    found[at < 0] = missing
    return found


def distinct(values: Ints) -> Ints:
    """Return the different values, sorted (numpy's own `unique` hashes, which takes longer)."""
    values = np.sort(values)
    fresh = np.ones(len(values), bool)
    fresh[1:] = values[1:] != values[:-1]
    return ints(values[fresh])


def _is_dense(values: Ints) -> bool:
    """Say whether numbers are few enough apart to be places in an array."""
    return not len(values) or int(values.max()) - int(values.min()) < 4 * len(values) + 64


class _Groups:
    """Small numbers for group ids, which may be anything (socket ids, thread ids, run numbers)."""

    def __init__(self, ids: Ints) -> None:
        self._first = int(ids.min()) if len(ids) else 0
        self.count = int(ids.max()) - self._first + 1 if len(ids) else 0
        self._ids = None if _is_dense(ids) else distinct(ids)

    def rank(self, ids: Ints) -> tuple[Ints, Bools]:
        """Return each id's number, and whether it has one; an id without one has any."""
        if self._ids is None:
            known = (ids >= self._first) & (ids < self._first + self.count)
            return np.where(known, ids, self._first).astype(np.int64) - self._first, known
        rank = np.minimum(np.searchsorted(self._ids, ids), len(self._ids) - 1)
        return rank, self._ids[rank] == ids


def search(ordered: Ints, wanted: Ints, side: Literal["left", "right"] = "left") -> Ints:
    """Return np.searchsorted(ordered, wanted, side), for many numbers in whatever order.

    In order they pass through the processor's cache once: some times as fast as at random.
    """
    if len(wanted) < _FEW or (wanted[1:] >= wanted[:-1]).all():
        return np.searchsorted(ordered, wanted, side)
    order = np.argsort(wanted)
    found = np.empty(len(wanted), np.int64)
    found[order] = np.searchsorted(ordered, wanted[order], side)
    return found


class Index:
    """Rows found by the nearest key within a group.

    A place is one number for group and key; the places of a group have a span of their own.
    """

    def __init__(self, group: Ints, key: Ints) -> None:
        """Index rows; equal (group, key) keep their order."""
        self._groups = _Groups(group)
        self._first, self._last = (int(key.min()), int(key.max())) if len(key) else (0, 0)
        self._span = self._last - self._first + 3
        self._keys = None
        if self._groups.count * self._span >= _ROOM:  # then the keys' ranks instead of the keys
            self._keys = distinct(key)
            self._span = len(self._keys) + 1
        places = self._groups.rank(group)[0] * self._span + self._bound(key, behind=False)
        order = np.argsort(places)
        self._places = places[order]
        if (self._places[1:] == self._places[:-1]).any():
            order = np.argsort(places, kind="stable")
        self._rows = lean(order)

    def _bound(self, key: Ints, *, behind: bool) -> Ints:
        """Return where, in a group's span, keys >= (behind: >) the given ones begin."""
        if self._keys is not None:
            return search(self._keys, key, "right" if behind else "left")
        return np.clip(ints(key), self._first - 1, self._last + 1) - (self._first - 1 - behind)

    def _row(self, at: Ints, first: Ints, known: Bools) -> Ints:
        """Return the row at an index of `_places` if it is of the group that begins at `first`."""
        if not len(self._places):
            return np.full(len(at), NONE, np.int64)
        place = self._places.take(at, mode="clip") - first
        known = known & (at >= 0) & (at < len(self._places)) & (place >= 0) & (place < self._span)
        row = ints(self._rows.take(at, mode="clip"))
        row[~known] = NONE
        return row

    def before(self, group: Ints, key: Ints, *, strict: bool = False) -> Ints:
        """Return the last row of the group with key <= (strict: <) the given one."""
        rank, known = self._groups.rank(group)
        first = rank * self._span
        at = search(self._places, first + self._bound(key, behind=not strict)) - 1
        return self._row(at, first, known)

    def after(self, group: Ints, key: Ints, *, strict: bool = False) -> Ints:
        """Return the first row of the group with key >= (strict: >) the given one."""
        rank, known = self._groups.rank(group)
        first = rank * self._span
        at = search(self._places, first + self._bound(key, behind=strict))
        return self._row(at, first, known)


class Keys:
    """Rows found by an exact key; the last of several equal ones."""

    def __init__(self, key: Ints) -> None:
        """Index rows by key."""
        self._first = int(key.min()) if len(key) else 0
        self._sorted: Ints | None = None
        if _is_dense(key):
            count = int(key.max()) - self._first + 1 if len(key) else 0
            self._rows = np.full(count, NONE, np.int64)
            self._rows[key - self._first] = np.arange(len(key))
        else:
            self._rows = np.argsort(key, kind="stable")
            self._sorted = key[self._rows]

    def find(self, key: Ints) -> Ints:
        """Return the row with each key."""
        if self._sorted is None:
            at = key.astype(np.int64) - self._first
            at[(at < 0) | (at >= len(self._rows))] = NONE
            return take(self._rows, at)
        at = search(self._sorted, key, "right") - 1
        at[(at >= 0) & (self._sorted[at] != key)] = NONE
        return take(self._rows, at)


def previous_in_group(group: Ints) -> Ints:
    """Return for each row of a sorted-by-group array the row before it, -1 at a group's start."""
    rows = np.arange(len(group), dtype=np.int64)
    same = np.zeros(len(group), bool)
    same[1:] = group[1:] == group[:-1]
    return np.where(same, rows - 1, NONE)


def sum_by(group: Ints, values: Ints, count: int) -> Ints:
    """Return the sum of values for each group 0..count-1; groups < 0 are left out."""
    total = np.zeros(count, np.int64)
    inside = group >= 0
    np.add.at(total, group[inside], values[inside])
    return total
