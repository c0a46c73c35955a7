"""Interpreters that this machine lacks: the newest CPython in the loads that matter most; PyPy."""

from __future__ import annotations

import subprocess
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from tracing import APPS, COMMAND, Traced, facts, load_lab
from verdict import verdict

from tests.unpacked import NEWEST, PLACE, install, make_environment, unpacked

if TYPE_CHECKING:
    from pathlib import Path

    from tracing import Tracings

pytestmark = [pytest.mark.bpf, pytest.mark.slow, pytest.mark.debian]
LOADS = {
    "streams": ("streams.py",),
    "multiplex": ("multiplex.py",),
    "background reader": ("multiplex.py", "--reader", "task"),
    "two loops": ("loops.py", "threads"),
    "forks": ("loops.py", "fork"),
    "eager": ("loops.py", "eager"),
    "streams on uvloop": ("streams.py", "--loop", "uvloop"),
}


@pytest.fixture(scope="module")
def newest() -> str:
    """Give an environment of it."""
    inside = make_environment(unpacked(NEWEST), PLACE / "newest")
    assert all(install(inside, package) for package in ("asyncpg", "uvloop"))
    return str(inside)


def check(trace: Traced) -> None:
    """Fail on a guess, and on 0.5 % of socket awaits without a task."""
    (target,) = {(target["agent"], target["python"]) for target in trace.info["targets"]}
    assert target[0] == "c"
    assert target[1].startswith(NEWEST.removeprefix("python"))
    attribution = Counter(row["attribution"] for row in trace.awaits if row["kind"] == "socket")
    assert attribution["inferred"] == 0
    assert attribution["unattributed"] < 0.005 * attribution.total()


@pytest.mark.parametrize("load", LOADS)
def test_no_await_is_wrong(traced: Tracings, newest: str, load: str) -> None:
    """Each await has its task and its bytes."""
    app, *arguments = LOADS[load]
    trace = traced(app, *arguments, python=newest)
    said = verdict(trace)
    assert said.wrong == []
    assert said.good
    check(trace)


@pytest.mark.postgres
def test_pool_is_exact(traced: Tracings, newest: str) -> None:
    """Every query of an asyncpg pool has its task and its bytes."""
    with load_lab().private_postgres("lo") as lab:
        trace = traced("pool.py", "--dsn", lab.dsn, python=newest)
    rows = trace.awaits_at("pool.py", "await conn.fetch(")
    # what a cancelled query would have received came later: the app cannot know it
    rows = [row | {"recv_bytes": None} if row["outcome"] == "cancelled" else row for row in rows]
    assert facts(rows) == facts(trace.truth["rows"])
    check(trace)


def test_pypy_runs_without_tasks(tmp_path: Path) -> None:
    """PyPy's system calls are recorded; that there are no tasks has its reason."""
    folder = tmp_path / "pypy.trace"
    command = [COMMAND, "run", "-o", folder, "--", unpacked("pypy3"), APPS / "plain_sockets.py"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert "no tasks: unsupported_python: pypy " in done.stderr
    trace = Traced(folder, {})
    (target,) = trace.info["targets"]
    assert target["agent"] == "none"
    assert target["reason"].endswith("not CPython")
    assert trace.tasks == []
    assert trace.info["events"]["syscall"]["written"] > 100
    assert {row["attribution"] for row in trace.awaits} <= {"unattributed"}
