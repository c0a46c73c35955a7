"""The samples of what was lost: a table, and the gaps that nobody told."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from tracer.correlate.gaps import touched
from tracer.correlate.index import ints
from tracer.events.header import load
from tracer.store.losses import read_losses

if TYPE_CHECKING:
    from pathlib import Path

KINDS = load().constants["KIND_MAX"]
SYSCALL = load().constants["KIND_SYSCALL"]
STEP = load().constants["KIND_STEP"] - 32


def sample(ts_ns: int, seen: list[int], lost: list[int], **agents: list[int]) -> dict[str, Any]:
    """Return a sample in which only system calls were seen or lost, by CPU."""
    rows = {
        name: [counts if kind == SYSCALL else [0] * len(counts) for kind in range(KINDS)]
        for name, counts in (("seen", seen), ("lost", lost))
    }
    return {"ts_ns": ts_ns, **rows, "agents": agents}


def written(path: Path, *samples: dict[str, Any], tail: str = "") -> Path:
    """Write samples as the session does, perhaps with one that was cut off."""
    path.write_text("".join(json.dumps(s) + "\n" for s in samples) + tail)
    return path


def of_step(count: int) -> list[int]:
    """Return an agent's losses: only steps."""
    return [count if kind == STEP else 0 for kind in range(16)]


def test_a_row_stands_where_a_count_grew(tmp_path: Path) -> None:
    """The table has what changed from sample to sample, by kind, CPU and agent, and no more."""
    path = written(
        tmp_path / "losses",
        sample(10, [5, 0], [0, 0]),
        sample(20, [9, 0], [2, 0], aa=of_step(0)),
        sample(30, [9, 4], [2, 4], aa=of_step(3), unknown=of_step(7)),
        tail='{"ts_ns": 40, "se',
    )
    columns = read_losses(path).columns({"aa": 6})
    rows = list(zip(*(column.tolist() for column in columns.values()), strict=True))
    assert rows == [
        (10, "syscall", 0, -1, 5, 0),
        (20, "syscall", 0, -1, 9, 2),
        (30, "syscall", 1, -1, 4, 4),
        (30, "step", -1, 6, -1, 3),
    ]
    assert read_losses(path).by_kind()["syscall"] == 6
    assert read_losses(path).of_agent("aa") == of_step(3)


def test_untold_losses_lie_between_two_samples(tmp_path: Path) -> None:
    """What no GAP record told of was lost after the last sample that did not know it."""
    losses = read_losses(
        written(
            tmp_path / "losses",
            sample(10, [9, 9], [0, 0]),
            sample(20, [9, 9], [4, 0]),
            sample(30, [9, 9], [4, 5]),
        )
    )
    assert losses.untold([4, 5], 1) == []
    assert losses.untold([4], 1) == [{"cpu": 1, "ts_ns": 20, "end_ns": 30, "lost_count": 5}]
    assert losses.untold([1, 5], 1) == [{"cpu": 0, "ts_ns": 10, "end_ns": 30, "lost_count": 3}]


def test_no_samples_and_foreign_ones_are_no_losses(tmp_path: Path) -> None:
    """A recording that died before its first sample, or was tampered with, is still read."""
    assert read_losses(tmp_path / "none").by_kind() == {}
    good = sample(10, [5], [1])
    bad = (
        *({}, [], 7, {"ts_ns": 1}, {**good, "seen": [[1]]}, {**good, "lost": "x"}),
        *({**good, "ts_ns": "x"}, {**good, "agents": [1]}, {**good, "ts_ns": 1 << 70}),
        {**good, "agents": {"aa": ["x"]}},
    )
    for wrong in bad:
        path = written(tmp_path / "losses", good, wrong)
        assert read_losses(path).by_kind()["syscall"] == 1, wrong
        assert len(read_losses(path).columns({"aa": 0})["ts_ns"]) == 1, wrong


def test_intervals_meet_gaps_that_overlap_them() -> None:
    """Touched is what shares a moment with any gap, whichever of several overlapping ones."""
    gap = {"ts_ns": ints([100, 20, 25]), "end_ns": ints([110, 90, 30])}
    none = {"ts_ns": ints([]), "end_ns": ints([])}
    events: Any = {"gap": gap, "agent_gap": none}
    start, end = ints([0, 0, 31, 91, 95, 111]), ints([19, 20, 40, 99, 100, 200])
    assert touched(events, start, end).tolist() == [False, True, True, False, True, False]
    assert not touched({"gap": none, "agent_gap": none}, start, end).any()
    assert touched(events, np.zeros(0, np.int64), np.zeros(0, np.int64)).tolist() == []
