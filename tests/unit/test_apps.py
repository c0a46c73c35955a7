"""The ground-truth apps, untraced: what they say about themselves is complete and unambiguous."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tracer.cli.demo import load_script

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
APPS = ROOT / "tests" / "apps"
# shape: how many awaits it notes (protocol_callback has no task, so it notes none).
SHAPES = {
    "connect": 5,
    "accept": 3,
    "write_only": 1,
    "several_recvs": 1,
    "several_trips": 1,
    "read_in_task": 7,
    "wrapped_read_in_task": 7,
    "shared_recv": 2,
    "protocol_callback": 0,
    "unix": 7,
    "busy": 1,
    "timer": 3,
    "late_timer": 1,
    "task": 1,
    "future": 1,
    "lock": 1,
    "event": 3,
    "queue": 23,
    "thread": 1,
    "yield": 1,
    "cancelled": 1,
    "cancelled_by_answer": 3,
    "open_at_end": 1,
    "locks": 4,
    "queues": 9,
    "rolled_up": 9,
    "ended_badly": 8,
    "on_behalf": 6,
    "thread_pool": 3,
    "to_thread": 3,
    "process_pool": 3,
    "short_work": 5,
    "subprocesses": 3,
    "signals": 3,
    "wrapped": 4,
    "wrapped_reader": 1,
    "loop_calls": 3,
    "datagrams": 7,
    "hidden": 4,
}
OUTCOMES = {
    "cancelled": {"cancelled"},
    "cancelled_by_answer": {"cancelled"},
    "open_at_end": {"open"},
    "ended_badly": {"exception", "cancelled"},
}


def run_app(path: Path, *arguments: str) -> str:
    """Run an app to its end and return the last line of its stdout."""
    command = [sys.executable, str(path), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.splitlines()[-1]


def truth_of(name: str, *arguments: str) -> dict[str, Any]:
    """Run a ground-truth app and return its JSON."""
    truth: dict[str, Any] = json.loads(run_app(APPS / name, *arguments))
    return truth


@pytest.fixture(scope="module")
def dsn() -> Iterator[str]:
    """Yield the address of a private PostgreSQL on loopback."""
    pytest.importorskip("asyncpg")
    if not list(Path("/usr/lib/postgresql").glob("*/bin/postgres")):
        pytest.skip("no PostgreSQL server: apt install postgresql")
    with load_script(ROOT / "demos" / "lab.py").private_postgres("lo") as lab:
        yield lab.dsn


def test_streams_lengths_are_unique() -> None:
    """Every call over streams has lengths of its own, on both sides, and none is missing."""
    truth = truth_of("streams.py")
    rows, server_rows = truth["rows"], truth["server_rows"]
    outcomes = Counter(row["outcome"] for row in rows)
    assert outcomes == {"ok": 40 * 23 + 5 * 7 + 5 * 2 + 3 * 2, "cancelled": 6}
    assert len({row["sent_bytes"] for row in rows}) == len(rows)
    answers = [row["recv_bytes"] for row in rows if row["outcome"] == "ok"]
    assert len(set(answers)) == len(answers)
    requests = Counter(row["recv_bytes"] for row in server_rows if row["outcome"] == "ok")
    assert requests == Counter(row["sent_bytes"] for row in rows)
    assert Counter(row["task"] for row in rows)["churn"] == 35


def test_churn_and_to_thread_lengths_are_unique() -> None:
    """Every task of one name, and every call of a worker, has lengths of its own."""
    lives = truth_of("churn.py")["lives"]
    assert len(lives) == 53 * 7
    calls = [tuple(call) for life in lives for call in life]
    assert {len(life) for life in lives} == {1, 2, 3}
    assert len(set(calls)) == len(calls)
    truth = truth_of("to_thread.py")
    moved = [(work["sent"], work["recv"]) for work in truth["works"] + truth["waits"]]
    assert len(set(moved)) == len(moved) == 2 * 8 * 11


@pytest.mark.parametrize("place", [[], ["--same-process"]], ids=["child", "thread"])
@pytest.mark.parametrize("reader", ["protocol", "task"])
def test_multiplex_sets_agree(reader: str, place: list[str]) -> None:
    """Each request is answered in exactly one write and one read, and neither is in send order."""
    truth = truth_of("multiplex.py", "--reader", reader, *place)
    requests = list(range(16 * 23))
    assert sorted(row["request"] for row in truth["rows"]) == requests
    written = [request for write in truth["writes"] for request in write]
    assert sorted(written) == requests
    assert [request for read in truth["reads"] for request in read["requests"]] == written
    assert written != requests
    assert max(len(write) for write in truth["writes"]) > 1
    answers = sum(row["answer_bytes"] for row in truth["rows"])
    assert sum(read["bytes"] for read in truth["reads"]) == answers
    for row in truth["rows"]:
        assert row["request"] in truth["reads"][row["read"]]["requests"]


@pytest.mark.postgres
def test_pool_lengths_are_unique(dsn: str) -> None:
    """Every query over the pool moved a number of bytes that no other query moved."""
    rows = truth_of("pool.py", "--dsn", dsn)["rows"]
    outcomes = Counter(row["outcome"] for row in rows)
    assert outcomes == {"ok": 32 * 11 + 3 * 7 + 5 * 2 + 2 + 1, "cancelled": 3}
    done = [row for row in rows if row["outcome"] == "ok"]
    pairs = {(row["sent_bytes"], row["recv_bytes"]) for row in done}
    assert len(pairs) == len(done)
    assert {row["task"] for row in rows} >= {f"pool-{index:02d}" for index in range(32)}


def test_shapes_are_all_listed() -> None:
    """Every shape that the app offers is tested here."""
    command = [sys.executable, str(APPS / "shapes.py"), "--help"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    offered = text.split("{", 1)[1].split("}", 1)[0].replace("\n", "").replace(" ", "")
    assert set(offered.split(",")) == set(SHAPES)


@pytest.mark.parametrize("shape", SHAPES)
def test_shape_tells_its_truth(shape: str) -> None:
    """A shape notes each of its awaits, with times in order, and ends as it says."""
    truth = truth_of("shapes.py", shape)
    waits = truth["waits"]
    assert len(waits) == SHAPES[shape]
    for row in waits:
        assert row["outcome"] in OUTCOMES.get(shape, {"ok"})
        if row["outcome"] != "open":
            assert row["start_ns"] < row["end_ns"]
        if "deadline_ms" in row:
            assert row["end_ns"] - row["start_ns"] >= row["deadline_ms"] * 1_000_000


def test_busy_answer_waits_for_the_spinner() -> None:
    """The answer is sent while the spinner spins, and read only after it."""
    truth = truth_of("shapes.py", "busy")
    spin, row = truth["spin"], truth["waits"][0]
    assert spin["start_ns"] < truth["answer_sent_ns"] < spin["end_ns"] < row["end_ns"]
    assert row["end_ns"] - truth["answer_sent_ns"] > 20_000_000


@pytest.mark.postgres
def test_full_stack_runs_every_query(dsn: str) -> None:
    """The demo runs as many queries of each kind as its mix says."""
    demo = ROOT / "demos" / "full_stack.py"
    line = run_app(demo, "--dsn", dsn, "--queries", "100", "--tasks", "20")
    kinds, _, rest = line.removeprefix("100 queries (").partition(")")
    assert sorted(kinds.split(", ")) == ["10 browse", "10 list_all", "10 settle", "70 look_up"]
    assert rest.startswith(" by 20 tasks over 5 connections in ")


@pytest.mark.postgres
def test_lab_leaves_nothing_behind() -> None:
    """Leaving the lab with an error stops the server and removes its folder."""
    if not list(Path("/usr/lib/postgresql").glob("*/bin/postgres")):
        pytest.skip("no PostgreSQL server: apt install postgresql")
    lab = load_script(ROOT / "demos" / "lab.py")
    seen: list[Path] = []

    def fail_inside() -> None:
        with lab.private_postgres("lo") as running:
            process = Path(f"/proc/{running.postmaster_pid}")
            seen.extend((process, (process / "cwd").resolve()))
            assert all(path.is_dir() for path in seen)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_inside()
    assert not any(path.exists() for path in seen)
