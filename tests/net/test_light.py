"""Light mode: without a compiler the agent runs in Python, and what it says is as true."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import pytest
from tracing import APPS, COMMAND, MULTIPLEX, Traced, bare, facts, load_lab, on
from verdict import verdict

from tests.unpacked import NEWEST, unpacked

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.bpf, pytest.mark.slow]
LOADS = [
    ("streams.py",),
    ("streams.py", *on("uvloop")),
    ("multiplex.py", *MULTIPLEX["task"]),
    ("multiplex.py", *MULTIPLEX["task"], *on("uvloop")),
    ("to_thread.py", *on("uvloop")),
]


def record(folder: Path, *program: str, python: str = sys.executable) -> tuple[Traced, str]:
    """Record a program of tests/apps; return its trace and what `run` said."""
    out = folder / "light.trace"
    command = [str(COMMAND), "run", "-o", str(out), "--", python, str(APPS / program[0])]
    done = subprocess.run(
        [*command, *program[1:]],
        env=bare(folder),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    trace = Traced(out, json.loads(done.stdout.splitlines()[-1]))
    assert {t["agent"] for t in trace.info["targets"] if t.get("python")} == {"light"}
    return trace, done.stderr


@pytest.mark.parametrize("app", LOADS, ids=" ".join)
def test_light_mode_is_exact(tmp_path: Path, app: tuple[str, ...]) -> None:
    """Every await has its task, its bytes and its receive; nothing is inferred."""
    trace, said = record(tmp_path, *app)
    judged = verdict(trace)
    assert (judged.good, judged.wrong, judged.inferred) == (True, [], 0)
    lines = [line for line in said.splitlines() if "light mode (no_compiler)" in line]
    assert len(lines) == 2, "at the start and in the summary"
    assert all("fix: sudo apt-get install gcc" in line for line in lines)
    reasons = [t["reason"] for t in trace.info["targets"] if t["agent"] == "light"]
    assert reasons
    assert all(reason.startswith("light mode (no_compiler)") for reason in reasons)


@pytest.mark.debian
def test_light_mode_is_exact_on_the_newest(tmp_path: Path) -> None:
    """The same on a CPython of another generation."""
    trace, _said = record(tmp_path, "streams.py", python=str(unpacked(NEWEST)))
    judged = verdict(trace)
    assert (judged.good, judged.wrong, judged.inferred) == (True, [], 0)


@pytest.mark.postgres
def test_light_mode_is_exact_with_a_pool(tmp_path: Path) -> None:
    """Every query has its task and the bytes that the kernel counted on its connection."""
    with load_lab().private_postgres("lo") as lab:
        trace, _said = record(tmp_path, "pool.py", "--dsn", lab.dsn)
    rows: list[dict[str, Any]] = trace.awaits_at("pool.py", "await conn.fetch(")
    # what a cancelled query would have received came later: the app cannot know it
    rows = [row | {"recv_bytes": None} if row["outcome"] == "cancelled" else row for row in rows]
    assert facts(rows) == facts(trace.truth["rows"])
    attribution = Counter(row["attribution"] for row in trace.awaits)
    assert (attribution["inferred"], attribution["unattributed"]) == (0, 0)


def test_uvloops_tls_is_a_part_of_the_set_up(tmp_path: Path, certificate: list[str]) -> None:
    """An await that connects over TLS has its connect and its handshake, as with the agent in C."""
    trace, _said = record(tmp_path, "tls_streams.py", *certificate, *on("uvloop"))
    whats = [tuple(part["what"] for part in row["setup"]) for row in trace.awaits if row["setup"]]
    assert whats == [("connect", "handshake")] * 8


def test_handshakes_in_memory(tmp_path: Path, certificate: list[str]) -> None:
    """They and start_tls have their times and outcomes, as with the agent in C."""
    trace, _said = record(tmp_path, "handshakes.py", *certificate, *on("uvloop"))
    found = [
        part
        for row in trace.awaits
        for part in row["setup"]
        if part["what"] == "handshake" and part["task_id"] == row["task_id"]
    ]
    told = [wait["handshake"] for wait in trace.truth["waits"]]
    told.sort(key=itemgetter("start_ns"))
    assert [part["outcome"] for part in found] == [shake["outcome"] for shake in told]
    for part, shake in zip(found, told, strict=True):
        end_ns = part["start_ns"] + part["dur_ns"]
        assert shake["start_ns"] <= part["start_ns"] < end_ns <= shake["end_ns"]
