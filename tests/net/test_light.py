"""Light mode: without a compiler the agent runs in Python, and what it says is as true."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from tracing import APPS, COMMAND, MULTIPLEX, Traced, facts, load_lab
from verdict import verdict

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.bpf, pytest.mark.slow]


@pytest.fixture
def bare(tmp_path: Path) -> dict[str, str]:
    """Return an environment without a compiler, and without an agent that was built before."""
    cache = tmp_path / "cache"
    cache.mkdir()
    env = {k: v for k, v in os.environ.items() if k not in ("CC", "SUDO_UID")}
    return {**env, "PATH": str(tmp_path / "nothing"), "XDG_CACHE_HOME": str(cache)}


def record(folder: Path, env: dict[str, str], *program: str, also: str = "") -> tuple[Traced, str]:
    """Record a program of tests/apps; return its trace and what `run` said."""
    out = folder / "light.trace"
    options = ["-o", str(out), *(("--also", also) if also else ())]
    command = [str(COMMAND), "run", *options, "--", sys.executable, str(APPS / program[0])]
    done = subprocess.run(
        [*command, *program[1:]], env=env, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    trace = Traced(out, json.loads(done.stdout.splitlines()[-1]))
    assert {t["agent"] for t in trace.info["targets"] if t.get("python")} == {"light"}
    return trace, done.stderr


@pytest.mark.parametrize("app", [("streams.py",), ("multiplex.py", *MULTIPLEX["task"])])
def test_light_mode_is_exact(tmp_path: Path, bare: dict[str, str], app: tuple[str, ...]) -> None:
    """Every await has its task, its bytes and its receive; nothing is inferred."""
    trace, said = record(tmp_path, bare, *app)
    judged = verdict(trace)
    assert (judged.good, judged.wrong, judged.inferred) == (True, [], 0)
    lines = [line for line in said.splitlines() if "light mode (no_compiler)" in line]
    assert len(lines) == 2, "at the start and in the summary"
    assert all("fix: sudo apt-get install gcc" in line for line in lines)
    reasons = [t["reason"] for t in trace.info["targets"] if t["agent"] == "light"]
    assert reasons
    assert all(reason.startswith("light mode (no_compiler)") for reason in reasons)


@pytest.mark.postgres
def test_light_mode_is_exact_with_a_pool(tmp_path: Path, bare: dict[str, str]) -> None:
    """Every query has its task and the bytes that the kernel counted on its connection."""
    with load_lab().private_postgres("lo") as lab:
        trace, _said = record(tmp_path, bare, "pool.py", "--dsn", lab.dsn)
    rows: list[dict[str, Any]] = trace.awaits_at("pool.py", "await conn.fetch(")
    # what a cancelled query would have received came later: the app cannot know it
    rows = [row | {"recv_bytes": None} if row["outcome"] == "cancelled" else row for row in rows]
    assert facts(rows) == facts(trace.truth["rows"])
    attribution = Counter(row["attribution"] for row in trace.awaits)
    assert (attribution["inferred"], attribution["unattributed"]) == (0, 0)
