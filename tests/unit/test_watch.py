"""What `run --watch-blocking` tells of a run, by what was seen of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tracer.capture.watch import Key, Look, Watch

if TYPE_CHECKING:
    from pathlib import Path

MS = 1_000_000
KEY = Key(1, 2, 3, 0)
GIL = range(0x7000, 0x7080)


def sample(line: int = 7) -> dict[str, Any]:
    """Return a sample with two frames of the app."""
    inner = {"file": "/app.py", "line": line, "name": "inner"}
    outer = {"file": "/app.py", "line": 1, "name": "main"}
    return {"frames": [inner, outer], "user": inner, "run": 3, "calls": "f", "collecting": False}


def told(looks: list[Look], over_ms: int = 50, key: Key = KEY) -> list[str]:
    """Return what is said of a run that is seen like this, then ends."""
    said: list[str] = []
    watch = Watch(over_ms * MS, said.append)
    for look in looks:
        watch.saw(key, look.ts_ns, look, sample())
        watch.settle([key])
    watch.settle([])
    watch.end()
    return said


@pytest.mark.parametrize(
    ("cpu_ms", "wait_ms", "doing", "says"),
    [
        (20, 0, "", "on a CPU: main at /app.py:7, in f"),
        (0, 0, "blocked in poll", "blocked in poll: main at /app.py:7, in f"),
        (0, 20, "", "used up: not its own doing"),
        (1, 0, "", "used up: not its own doing"),
        (9, 11, "", "used up: not its own doing"),
        (9, 2, "waited for the GIL", "on a CPU: main at /app.py:7, in f"),
        (2, 2, "waited for the GIL", "waited for the GIL: main at /app.py:7, in f"),
    ],
)
def test_the_largest_share_is_the_cause(cpu_ms: int, wait_ms: int, doing: str, says: str) -> None:
    """Between two looks the kernel says how long it ran and waited; else it did what is seen."""
    looks = [Look(at * 20 * MS, at * cpu_ms * MS, at * wait_ms * MS, doing) for at in range(1, 5)]
    line, count, *_places = told(looks)
    assert line.startswith("blocking: 0.08 s or more, ")
    assert line.endswith(says)
    assert count == "blocking: 1 times over 50 ms, 0.08 s"


def test_an_iteration_of_many_callbacks() -> None:
    """An iteration full of runs is told as such, but only if it did it itself."""
    key = Key(1, 2, 0, 0)
    line, *_rest = told([Look(at * 20 * MS, at * 20 * MS, 0, "") for at in range(1, 5)], key=key)
    assert line == "blocking: 0.08 s or more, many callbacks, on a CPU: main at /app.py:7, in f"
    line, *_rest = told([Look(at * 20 * MS, 0, at * 20 * MS, "") for at in range(1, 5)], key=key)
    assert line.startswith("blocking: 0.08 s or more, wanted a CPU: ")


def test_one_look_tells_no_cause() -> None:
    """A run that was seen once is told, but nothing is blamed."""
    line, *_rest = told([Look(60 * MS, 0, 0, "")])
    assert line == "blocking: 0.06 s or more, cause not seen: unknown place"


def test_short_runs_are_not_told() -> None:
    """What was over before the limit is not told."""
    assert told([Look(at * MS, 0, 0, "") for at in (20, 40)]) == [
        "blocking: 0 times over 50 ms, 0.00 s"
    ]


def test_a_run_without_end_is_told_once() -> None:
    """A run that goes on is told after a second, and not again when it ends."""
    lines = told([Look(at * 100 * MS, 0, 0, "blocked in read") for at in range(1, 30)])
    assert [line[:30] for line in lines[:2]] == [
        "blocking: 1.10 s or more, bloc",
        "blocking: 1 times over 50 ms, ",
    ]


def test_a_look_into_proc(tmp_path: Path) -> None:
    """The system call and its futex are read as the kernel writes them."""
    (tmp_path / "schedstat").write_text("123 45 6\n")
    for call, doing in (
        ("running\n", ""),
        ("202 0x7008 0x189 0x0 0x0 0x0 0x0 0x7ff 0x7f0\n", "waited for the GIL"),
        ("202 0x7080 0x189 0x0 0x0 0x0 0x0 0x7ff 0x7f0\n", "blocked in futex"),
        ("230 0x1 0x0 0x0 0x0 0x0 0x0 0x7ff 0x7f0\n", "blocked in clock_nanosleep"),
        ("-1 0x7ff 0x7f0\n", "blocked in a page fault"),
    ):
        (tmp_path / "syscall").write_text(call)
        assert Look.at(9, tmp_path, GIL) == Look(9, 123, 45, doing)
    assert Look.at(9, tmp_path / "gone", GIL) is None
