"""Nearest-neighbour look-ups within groups, vectorised.

All arrays are one-dimensional int64. A result is a row number of the indexed arrays, -1 for none.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
NONE = -1


def ints(values: npt.ArrayLike) -> Ints:
    """Return an int64 array."""
    return np.asarray(values, dtype=np.int64)


def take(values: Ints, at: Ints, missing: int = NONE) -> Ints:
    """Return values[at], `missing` where at is -1."""
    if not len(values):
        return np.full(len(at), missing, np.int64)
    return np.where(at >= 0, values[np.maximum(at, 0)], missing)


class Index:
    """Rows sorted by (group, key), found by the nearest key within a group."""

    def __init__(self, group: Ints, key: Ints) -> None:
        """Index rows; equal (group, key) keep their order."""
        self._keys = np.unique(key)
        self._span = len(self._keys) + 1
        # groups may be any numbers (socket ids): rank them
        self._groups = np.unique(group)
        ranked = np.searchsorted(self._groups, group)
        composite = ranked * self._span + np.searchsorted(self._keys, key)
        self.order = np.argsort(composite, kind="stable")
        self._composite = composite[self.order]
        self._group = group

    def _rank(self, group: Ints) -> tuple[Ints, Bools]:
        if not len(self._groups):
            return np.zeros(len(group), np.int64), np.zeros(len(group), bool)
        rank = np.minimum(np.searchsorted(self._groups, group), len(self._groups) - 1)
        return rank, self._groups[rank] == group

    def _at(self, position: Ints, known: Bools, group: Ints) -> Ints:
        inside = known & (position >= 0) & (position < len(self.order))
        found = np.full(len(group), NONE, np.int64)
        rows = self.order[position[inside]]
        found[inside] = np.where(self._group[rows] == group[inside], rows, NONE)
        return found

    def before(self, group: Ints, key: Ints, *, strict: bool = False) -> Ints:
        """Return the last row of the group with key <= (strict: <) the given one."""
        rank, known = self._rank(group)
        bound = np.searchsorted(self._keys, key, side="left" if strict else "right")
        position = np.searchsorted(self._composite, rank * self._span + bound, side="left") - 1
        return self._at(position, known, group)

    def after(self, group: Ints, key: Ints, *, strict: bool = False) -> Ints:
        """Return the first row of the group with key >= (strict: >) the given one."""
        rank, known = self._rank(group)
        bound = np.searchsorted(self._keys, key, side="right" if strict else "left")
        position = np.searchsorted(self._composite, rank * self._span + bound, side="left")
        return self._at(position, known, group)


class Keys:
    """Rows found by an exact key; the last of several equal ones."""

    def __init__(self, key: Ints) -> None:
        """Index rows by key."""
        self._order = np.argsort(key, kind="stable")
        self._sorted = key[self._order]

    def find(self, key: Ints) -> Ints:
        """Return the row with each key."""
        position = np.searchsorted(self._sorted, key, side="right") - 1
        found = np.full(len(key), NONE, np.int64)
        if len(self._sorted):
            hit = (position >= 0) & (self._sorted[np.maximum(position, 0)] == key)
            found[hit] = self._order[position[hit]]
        return found


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
