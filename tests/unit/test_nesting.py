"""Runs inside runs, against the obvious way to look them up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from tracer.correlate.events import Runs
from tracer.correlate.index import ints

if TYPE_CHECKING:
    from collections.abc import Iterator

# what a run runs: runs of its own
TREE = st.recursive(st.just([]), lambda inner: st.lists(inner, max_size=4), max_leaves=12)
Span = tuple[int, int, int]  # thread, begin, end


def spans(tid: int, tree: list, at: int) -> Iterator[Span]:
    """Yield the runs of a tree, each one clock tick from the next event; the last one's end."""
    for child in tree:
        inner = list(spans(tid, child, at + 1))
        end = max((end for *_, end in inner), default=at) + 1
        yield tid, at, end
        yield from inner
        at = end + 1


@given(st.lists(TREE, min_size=1, max_size=3))
def test_a_moment_lies_in_the_innermost_run_around_it(trees: list[list]) -> None:
    """Whatever was run inside a run before that moment, and however deep."""
    found = sorted(
        (span for tid, tree in enumerate(trees) for span in spans(tid, tree, tid)),
        key=lambda span: span[1],
    )
    nothing = ints([-1] * len(found))
    names = ("agent", "wake", "wake_tid", "flags", "step", "callback", "waker")
    runs = Runs(
        tid=ints([tid for tid, _b, _e in found]),
        begin=ints([begin for _t, begin, _e in found]),
        end=ints([end for _t, _b, end in found]),
        of_step=nothing,
        of_callback=nothing,
        **dict.fromkeys(names, nothing),
    )
    moments = [(tid, ts) for tid in range(len(trees) + 1) for ts in range(60)]
    expected = [
        max(
            (n for n, (t, begin, end) in enumerate(found) if t == tid and begin <= ts <= end),
            default=-1,
        )
        for tid, ts in moments
    ]
    asked = runs.containing(ints([m[0] for m in moments]), ints([m[1] for m in moments]))
    assert asked.tolist() == expected
