"""Byte positions from 32-bit sequence numbers."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tracer.correlate.index import ints
from tracer.correlate.sockets import _unwrap

WRAP = 1 << 32
# what is sent at once, and how far TCP goes back for a retransmit
MOVE = st.one_of(st.integers(0, 70_000), st.integers(-(2**30), 2**30), st.integers(0, 2**31 - 1))


def unwrapped(stream: list[int], ts: list[int], true: list[int]) -> list[int]:
    """Return the positions of events whose sequence numbers are the true ones modulo 2**32."""
    return _unwrap(ints(stream), ints(ts), ints(true) % WRAP).tolist()


def test_a_wrap_is_no_step_back() -> None:
    """After 2**32 - 1 comes 0, and the position grows on."""
    true = [WRAP - 20, WRAP - 10, WRAP, WRAP + 10]
    assert unwrapped([1] * 4, [1, 2, 3, 4], true) == [t + WRAP for t in true]


def test_a_retransmit_across_the_wrap_keeps_its_position() -> None:
    """A packet that is sent again after the wrap has the position of the first time."""
    true = [WRAP - 1000, WRAP + 500, WRAP - 1000, WRAP + 2000]
    positions = unwrapped([7] * 4, [1, 2, 3, 4], true)
    assert positions[2] == positions[0]
    assert np.diff(positions).tolist() == np.diff(true).tolist()


def test_many_wraps_add_up() -> None:
    """Ten gigabytes in 256 KiB pieces are ten gigabytes of positions."""
    true = np.arange(0, 10 << 30, 256 << 10)
    positions = _unwrap(np.zeros(len(true), np.int64), np.arange(len(true)), true % WRAP)
    assert (positions - true == WRAP).all()


@given(
    st.dictionaries(
        st.integers(0, 2**40),
        st.tuples(st.integers(0, WRAP - 1), st.lists(MOVE, max_size=12)),
        min_size=1,
        max_size=4,
    ),
    st.randoms(use_true_random=False),
)
def test_distances_are_true_in_every_stream(streams: dict, shuffle: object) -> None:
    """Whatever the rows' order, two events of a stream are as far apart as their bytes."""
    rows = []
    for number, (first, moves) in streams.items():
        for at, position in enumerate(np.cumsum([first, *moves]).tolist()):
            rows.append((number, at, position))
    shuffle.shuffle(rows)
    positions = unwrapped(*(list(column) for column in zip(*rows, strict=True)))
    for (number, at, true), position in zip(rows, positions, strict=True):
        first = streams[number][0]
        assert position == true + WRAP, (number, at)
        assert at or position == first + WRAP


def test_no_events_have_no_positions() -> None:
    """An empty trace is no special case."""
    assert unwrapped([], [], []) == []
