"""How long a run held its loop by itself."""

from __future__ import annotations

from tracer.correlate.holds import _inner
from tracer.correlate.index import ints


def test_the_time_of_runs_inside_is_theirs() -> None:
    """An eager task's step inside another run counts for itself, and once, for the one around."""
    tid = ints([1, 1, 1, 2, 1, 1])
    begin = ints([0, 10, 20, 15, 60, 100])
    end = ints([100, 50, 40, 90, 70, 130])
    assert _inner(tid, begin, end).tolist() == [50, 20, 0, 0, 0, 0]


def test_a_run_that_begins_with_its_inner_one() -> None:
    """Of two that begin at once the longer one is around the other, whatever their order."""
    for both in ([(5, 30), (5, 20)], [(5, 20), (5, 30)]):
        begin, end = (ints([run[i] for run in both]) for i in (0, 1))
        inner = dict(zip(both, _inner(ints([7, 7]), begin, end).tolist(), strict=True))
        assert inner == {(5, 30): 15, (5, 20): 0}
