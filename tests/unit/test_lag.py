"""What a thread did at each moment: every nanosecond has one cause."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.correlate.events import Runs
from tracer.correlate.index import ints
from tracer.correlate.lag import BUSY, GIL, LOOP, RUNQ, SYSCALL, THROTTLED, ThreadTime

TID = 77
EPOLL_WAIT, POLL, READ, FUTEX, NO_CALL = 232, 7, 0, 202, 65535
PREEMPTED, ASLEEP = 0, 1
WOKEN_EARLY = 64
CAUSES = (LOOP, BUSY, RUNQ, SYSCALL, GIL, THROTTLED)
FREELY, OUT_OF_QUOTA, FOR_GIL = 0, 1, 2
COLUMNS = ("ts_ns", "dur_ns", "wake_ns", "state", "nr", "flags", "why")
Off = tuple[int, int, int, int, int, int, int]


def thread_time(
    off: list[Off], runs: list[tuple[int, int]], stolen: list[tuple[int, int]] | None = None
) -> ThreadTime:
    """Return the time of one thread among others that are off the CPU and running all along."""
    noise = (0, 1000, 5, ASLEEP, READ, 0, FREELY)
    table = {c: ints([row[i] for row in [noise, *off]]) for i, c in enumerate(COLUMNS)}
    table["tid"] = ints([TID + 1] + [TID] * len(off))
    spans = [(0, 1000), *runs]
    nothing = np.full(len(spans), -1, np.int64)
    taken = [(0, 1000), *(stolen or [])]
    names = ("agent", "wake", "wake_tid", "flags", "step", "callback", "waker")
    return ThreadTime(
        TID,
        table,
        {
            "tid": ints([TID + 1] + [TID] * (len(taken) - 1)),
            "ts_ns": ints([begin for begin, _end in taken]),
            "dur_ns": ints([end - begin for begin, end in taken]),
        },
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
    spans = {c: int(time.between(ints([start]), ints([end]), c)[0]) for c in CAUSES}
    return {cause: ns for cause, ns in spans.items() if ns}


@pytest.mark.parametrize(
    ("off", "expected"),
    [
        ((100, 50, 30, ASLEEP, EPOLL_WAIT, 0, FREELY), {LOOP: 130, RUNQ: 20}),
        ((100, 50, 30, ASLEEP, POLL, 0, FREELY), {LOOP: 130, RUNQ: 20}),
        ((100, 50, 30, ASLEEP, READ, 0, FREELY), {LOOP: 100, SYSCALL: 30, RUNQ: 20}),
        ((100, 50, 0, PREEMPTED, NO_CALL, 0, FREELY), {LOOP: 100, RUNQ: 50}),
        ((100, 50, 0, ASLEEP, READ, 0, FREELY), {LOOP: 100, SYSCALL: 50}),
        ((100, 50, 0, ASLEEP, READ, WOKEN_EARLY, FREELY), {LOOP: 100, RUNQ: 50}),
        ((100, 50, 0, PREEMPTED, NO_CALL, 0, OUT_OF_QUOTA), {LOOP: 100, THROTTLED: 50}),
        ((100, 50, 30, ASLEEP, READ, 0, OUT_OF_QUOTA), {LOOP: 100, SYSCALL: 30, THROTTLED: 20}),
        ((100, 50, 30, ASLEEP, FUTEX, 0, FOR_GIL), {LOOP: 100, GIL: 30, RUNQ: 20}),
    ],
    ids=[
        "idle",
        "idle-in-poll",
        "blocked",
        "preempted",
        "never-woken",
        "woken-early",
        "throttled",
        "woken-without-quota",
        "gil",
    ],
)
def test_each_way_to_be_off_the_cpu(off: Off, expected: dict[int, int]) -> None:
    """Waiting in epoll or poll is the loop's, another call blocks, runnable is the run queue."""
    assert causes(thread_time([off], []), 0, 150) == expected


def test_a_run_is_busy_only_while_it_is_on_the_cpu() -> None:
    """What preempted or blocked a step is not the step's own time."""
    off = [(20, 10, 0, PREEMPTED, NO_CALL, 0, FREELY), (40, 20, 15, ASLEEP, READ, 0, FREELY)]
    time = thread_time(off, [(10, 80)])
    assert causes(time, 0, 100) == {LOOP: 30, BUSY: 40, RUNQ: 15, SYSCALL: 15}
    assert causes(time, 25, 45) == {RUNQ: 5, BUSY: 10, SYSCALL: 5}
    assert time.on_cpu(ints([10]), ints([80])).tolist() == [40]


def test_a_stolen_cpu_is_nobodys_time_on_it() -> None:
    """What the hypervisor took from a run, or from the loop between runs, is the run queue's."""
    off = [(40, 20, 15, ASLEEP, READ, 0, FREELY)]
    time = thread_time(off, [(10, 80)], [(20, 35), (85, 95)])
    assert causes(time, 0, 100) == {LOOP: 20, BUSY: 35, SYSCALL: 15, RUNQ: 30}
    assert time.on_cpu(ints([10]), ints([80])).tolist() == [35]
    assert time.stolen(ints([0, 25, 60]), ints([100, 90, 80])).tolist() == [25, 15, 0]


def test_what_was_stolen_off_the_cpu_is_not_told_twice() -> None:
    """A begin that lies before the thread came back, by two clocks, takes nothing from the wait."""
    off = [(40, 20, 15, ASLEEP, READ, 0, FREELY)]
    time = thread_time(off, [(10, 80)], [(50, 70)])
    assert causes(time, 0, 100) == {LOOP: 30, BUSY: 40, SYSCALL: 15, RUNQ: 15}
    assert time.stolen(ints([0]), ints([100])).tolist() == [10]


def test_an_epoll_wait_inside_a_run_is_not_the_loops() -> None:
    """A step that waits in an epoll_wait of its own is blocked."""
    off = [(20, 30, 20, ASLEEP, EPOLL_WAIT, 0, FREELY)]
    assert causes(thread_time(off, [(10, 80)]), 0, 100) == {
        LOOP: 30,
        BUSY: 40,
        SYSCALL: 20,
        RUNQ: 10,
    }


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
        why = draw(st.sampled_from([FREELY, OUT_OF_QUOTA, FOR_GIL]))
        off.append((out, back - out, wake, state, call, early, why))
    cuts = sorted(draw(st.sets(st.integers(3, 97), max_size=8)))
    return off, list(zip(cuts[::2], cuts[1::2], strict=False))


def cause_at(moment: int, off: list[Off], runs: list[tuple[int, int]]) -> int:
    """Return the cause of the nanosecond that begins at a moment."""
    for out, length, wake, state, call, flags, why in off:
        if out <= moment < out + length:
            asleep = 0 if state == PREEMPTED or flags else wake or length
            if moment >= out + asleep:
                return THROTTLED if why == OUT_OF_QUOTA else RUNQ
            if why == FOR_GIL:
                return GIL
            busy = any(begin <= out < end for begin, end in runs)
            return LOOP if call == EPOLL_WAIT and not busy else SYSCALL
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
