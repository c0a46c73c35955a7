"""Nearest-neighbour look-ups against the obvious way to do them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from tracer.correlate.index import Index, Keys, ints, previous_in_group, sum_by, take

if TYPE_CHECKING:
    from collections.abc import Callable

SMALL = st.integers(-3, 6)
# socket ids and thread ids share no range
HIGH = st.sampled_from([2**62, 2**62 + 1])
GROUP = st.one_of(SMALL, HIGH, st.just(-(2**62)))
KEY = st.one_of(SMALL, st.integers(0, 2**62))
ROWS = st.one_of(
    st.lists(st.tuples(GROUP, KEY), max_size=25), st.lists(st.tuples(HIGH, KEY), max_size=5)
)


def naive(rows: list[tuple[int, int]], group: int, fits: Callable[[int], bool], best: int) -> int:
    """Return the fitting row of a group with the best (key, row), -1 for none."""
    found = sorted((key, row) for row, (g, key) in enumerate(rows) if g == group and fits(key))
    return found[best][1] if found else -1


@given(ROWS, ROWS)
def test_before_and_after_find_the_nearest_row(
    rows: list[tuple[int, int]], asked: list[tuple[int, int]]
) -> None:
    """`before` is the last row up to a key, `after` the first from it on; strict leaves it out."""
    index = Index(ints([g for g, _k in rows]), ints([k for _g, k in rows]))
    asked = asked + rows
    group, key = ints([g for g, _k in asked]), ints([k for _g, k in asked])

    def expect(fits: Callable[[int, int], bool], best: int) -> list[int]:
        return [naive(rows, g, lambda other, k=k: fits(other, k), best) for g, k in asked]

    assert index.before(group, key).tolist() == expect(lambda a, b: a <= b, -1)
    assert index.before(group, key, strict=True).tolist() == expect(lambda a, b: a < b, -1)
    assert index.after(group, key).tolist() == expect(lambda a, b: a >= b, 0)
    assert index.after(group, key, strict=True).tolist() == expect(lambda a, b: a > b, 0)


def test_a_neighbour_group_is_never_the_answer() -> None:
    """Beyond a group's last key there is nothing, though other groups have rows there."""
    index = Index(ints([1, 1, 2]), ints([10, 20, 15]))
    assert index.after(ints([1, 2, 3]), ints([21, 16, 0])).tolist() == [-1, -1, -1]
    assert index.before(ints([2, 1, 0]), ints([14, 9, 99])).tolist() == [-1, -1, -1]


@given(
    st.one_of(st.lists(GROUP, max_size=20), st.lists(HIGH, max_size=3)),
    st.lists(GROUP, max_size=20),
)
def test_keys_find_the_last_of_equal_rows(keys: list[int], asked: list[int]) -> None:
    """An exact key finds its row, the last one of several, and -1 where there is none."""
    expected = [max((i for i, k in enumerate(keys) if k == a), default=-1) for a in asked]
    assert Keys(ints(keys)).find(ints(asked)).tolist() == expected


@given(st.lists(SMALL, max_size=20))
def test_previous_in_group(groups: list[int]) -> None:
    """The row before, unless it is of another group."""
    groups.sort()
    expected = [i - 1 if i and groups[i - 1] == g else -1 for i, g in enumerate(groups)]
    assert previous_in_group(ints(groups)).tolist() == expected


@given(st.lists(st.tuples(st.integers(-1, 4), SMALL), max_size=20))
def test_sum_by_leaves_out_rows_without_a_group(rows: list[tuple[int, int]]) -> None:
    """Each group has the sum of its values; -1 is no group."""
    expected = [sum(v for g, v in rows if g == group) for group in range(5)]
    total = sum_by(ints([g for g, _v in rows]), ints([v for _g, v in rows]), 5)
    assert total.tolist() == expected


def test_take_of_nothing() -> None:
    """A row number of -1 takes the stand-in, also from an empty array."""
    assert take(ints([5, 6]), ints([1, -1, 0])).tolist() == [6, -1, 5]
    assert take(ints([]), ints([-1, -1]), 7).tolist() == [7, 7]
