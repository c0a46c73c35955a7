"""What a thread did at each moment: every nanosecond has one cause."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.correlate.events import Runs
from tracer.correlate.index import ints
from tracer.correlate.lag import BUSY, LOOP, RUNQ, SYSCALL, ThreadTime

TID = 77
EPOLL_WAIT, READ, NO_CALL = 232, 0, 65535
PREEMPTED, ASLEEP = 0, 1
WOKEN_EARLY = 64
COLUMNS = ("ts_ns", "dur_ns", "wake_ns", "state", "nr", "flags")
Off = tuple[int, int, int, int, int, int]


def thread_time(off: list[Off], runs: list[tuple[int, int]]) -> ThreadTime:
    """Return the time of one thread among others that are off the CPU and running all along."""
    noise = (0, 1000, 5, ASLEEP, READ, 0)
    table = {c: ints([row[i] for row in [noise, *off]]) for i, c in enumerate(COLUMNS)}
    table["tid"] = ints([TID + 1] + [TID] * len(off))
    spans = [(0, 1000), *runs]
    nothing = np.full(len(spans), -1, np.int64)
    names = ("agent", "wake", "wake_tid", "flags", "step", "callback", "waker")
    return ThreadTime(
        TID,
        table,
        Runs(
            tid=ints([TID + 1] + [TID] * len(runs)),
            begin=ints([b for b, _e in spans]),
            end=ints([e for _b, e in spans]),
            of_step=nothing,
            of_callback=nothing,
            **dict.fromkeys(names, nothing),
        ),
    )


def causes(time: ThreadTime, start: int, end: int) -> dict[int, int]:
    """Return an interval's time by cause, without the causes that have none."""
    spans = {
        c: int(time.between(ints([start]), ints([end]), c)[0]) for c in (LOOP, BUSY, RUNQ, SYSCALL)
    }
    return {cause: ns for cause, ns in spans.items() if ns}


@pytest.mark.parametrize(
    ("off", "expected"),
    [
        ((100, 50, 30, ASLEEP, EPOLL_WAIT, 0), {LOOP: 130, RUNQ: 20}),
        ((100, 50, 30, ASLEEP, READ, 0), {LOOP: 100, SYSCALL: 30, RUNQ: 20}),
        ((100, 50, 0, PREEMPTED, NO_CALL, 0), {LOOP: 100, RUNQ: 50}),
        ((100, 50, 0, ASLEEP, READ, 0), {LOOP: 100, SYSCALL: 50}),
        ((100, 50, 0, ASLEEP, READ, WOKEN_EARLY), {LOOP: 100, RUNQ: 50}),
    ],
    ids=["idle", "blocked", "preempted", "never-woken", "woken-early"],
)
def test_each_way_to_be_off_the_cpu(off: Off, expected: dict[int, int]) -> None:
    """Waiting in epoll is the loop's, another call blocks, and runnable is the run queue."""
    assert causes(thread_time([off], []), 0, 150) == expected


def test_a_run_is_busy_only_while_it_is_on_the_cpu() -> None:
    """What preempted or blocked a step is not the step's own time."""
    off = [(20, 10, 0, PREEMPTED, NO_CALL, 0), (40, 20, 15, ASLEEP, READ, 0)]
    time = thread_time(off, [(10, 80)])
    assert causes(time, 0, 100) == {LOOP: 30, BUSY: 40, RUNQ: 15, SYSCALL: 15}
    assert causes(time, 25, 45) == {RUNQ: 5, BUSY: 10, SYSCALL: 5}
    assert time.on_cpu(ints([10]), ints([80])).tolist() == [40]


def test_a_thread_without_events_is_all_the_loops() -> None:
    """Nothing recorded of a thread: its time is there, and nobody else's."""
    assert causes(thread_time([], []), 5, 25) == {LOOP: 20}


@st.composite
def lives(draw: st.DrawFn) -> tuple[list[Off], list[tuple[int, int]]]:
    """Draw a thread's life: stretches off the CPU and runs, each without overlaps of its kind."""
    cuts = sorted(draw(st.sets(st.integers(3, 97), max_size=12)))
    off = []
    for out, back in zip(cuts[::2], cuts[1::2], strict=False):
        state = draw(st.sampled_from([PREEMPTED, ASLEEP]))
        early = WOKEN_EARLY if state and draw(st.booleans()) else 0
        wake = draw(st.integers(0, back - out)) if state and not early else 0
        call = draw(st.sampled_from([EPOLL_WAIT, READ, NO_CALL]))
        off.append((out, back - out, wake, state, call, early))
    cuts = sorted(draw(st.sets(st.integers(3, 97), max_size=8)))
    return off, list(zip(cuts[::2], cuts[1::2], strict=False))


def cause_at(moment: int, off: list[Off], runs: list[tuple[int, int]]) -> int:
    """Return the cause of the nanosecond that begins at a moment."""
    for out, length, wake, state, call, flags in off:
        if out <= moment < out + length:
            asleep = 0 if state == PREEMPTED or flags else wake or length
            if moment >= out + asleep:
                return RUNQ
            return LOOP if call == EPOLL_WAIT else SYSCALL
    return BUSY if any(begin <= moment < end for begin, end in runs) else LOOP


@given(lives(), st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100)), min_size=1))
def test_causes_sum_to_any_interval(
    life: tuple[list[Off], list[tuple[int, int]]], intervals: list[tuple[int, int]]
) -> None:
    """Each cause has exactly its own nanoseconds, and together they are the interval."""
    time = thread_time(*life)
    for begin, end in map(sorted, intervals):
        expected: dict[int, int] = {}
        for moment in range(begin, end):
            cause = cause_at(moment, *life)
            expected[cause] = expected.get(cause, 0) + 1
        found = causes(time, begin, end)
        assert found == expected
        assert sum(found.values()) == end - begin
