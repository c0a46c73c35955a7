"""Record ground-truth apps with the real command, once per session, and read them back.

`run` is a process of its own, as for a user. The commands that read a trace run in this process:
the same code without 0.2 s of start for each of some hundred questions.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from tracer.cli.demo import load_script
from tracer.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
APPS = ROOT / "tests" / "apps"
COMMAND = Path(sys.executable).with_name("awaitscope")
MULTIPLEX: dict[str, tuple[str, ...]] = {
    "protocol": (),
    "task": ("--reader", "task"),
    "thread": ("--same-process",),
}
SHAPES = (
    "accept",
    "busy",
    "cancelled",
    "cancelled_by_answer",
    "connect",
    "datagrams",
    "ended_badly",
    "event",
    "future",
    "hidden",
    "late_timer",
    "lock",
    "locks",
    "loop_calls",
    "on_behalf",
    "open_at_end",
    "process_pool",
    "protocol_callback",
    "queue",
    "queues",
    "read_in_task",
    "rolled_up",
    "several_recvs",
    "several_trips",
    "shared_recv",
    "short_work",
    "signals",
    "subprocesses",
    "task",
    "thread",
    "thread_pool",
    "timer",
    "to_thread",
    "unix",
    "wrapped",
    "wrapped_read_in_task",
    "wrapped_reader",
    "write_only",
    "yield",
)
LOOPS = ("threads", "again", "fork", "poll", "select", "inside")
LOOP_KINDS = ("asyncio", "uvloop")
EAGER_PYTHONS = ("3.12", "3.13", "3.14")
OUTCOME = {"ok": "result", "eof": "result", "cancelled": "cancelled"}
STAGES = ("prepare", "send", "remote", "receive", "wake", "queue", "read", "resume")
Row = dict[str, Any]


def on(loop: str) -> tuple[str, ...]:
    """Return the arguments that make an app run on a kind of loop; none for asyncio's own."""
    return () if loop == "asyncio" else ("--loop", loop)


def bare(folder: Path) -> dict[str, str]:
    """Return an environment without a compiler, and without an agent that was built before."""
    cache = folder / "cache"
    cache.mkdir(exist_ok=True)
    env = {k: v for k, v in os.environ.items() if k not in ("CC", "SUDO_UID")}
    return {**env, "PATH": str(folder / "nothing"), "XDG_CACHE_HOME": str(cache)}


@dataclass
class Traced:
    """A finished trace, what its program said about itself, and what `run` said of it."""

    folder: Path
    truth: Row
    said: str = ""

    def read(self, command: str, *args: str) -> Row:
        """Return the JSON document of a command on this trace."""
        done = CliRunner().invoke(main, [command, str(self.folder), *args, "--json"])
        assert done.exit_code == 0, done.output
        document: Row = json.loads(done.stdout)
        return document

    @cached_property
    def info(self) -> Row:
        """What was recorded, and what was lost."""
        return self.read("info")

    @cached_property
    def tasks(self) -> list[Row]:
        """The tasks in order of birth."""
        return list(self.read("tasks")["rows"])

    @cached_property
    def awaits(self) -> list[Row]:
        """The awaits in order of their start."""
        return list(self.read("awaits")["rows"])

    def query(self, sql: str) -> list[Row]:
        """Return the rows of a query."""
        return list(self.read("query", sql)["rows"])

    def steps(self, await_id: int, trip: int | None = None) -> Row:
        """Return the 13 steps of an await, of its last trip or of the given one."""
        return self.read(
            "steps", "--await", str(await_id), *(["--trip", str(trip)] if trip else [])
        )

    def legs(self, await_id: int) -> list[Row]:
        """Return the cut points of an await's trips, in order."""
        return self.query(f"SELECT * FROM leg WHERE await_id = {await_id} ORDER BY trip")

    def one(self, table: str, row_id: int) -> Row:
        """Return an event by its id."""
        (row,) = self.query(f'SELECT * FROM "{table}" WHERE id = {row_id}')
        return row

    def task_id(self, name: str) -> int:
        """Return the id of the only task of this name."""
        (found,) = [row["task_id"] for row in self.tasks if row["task_name"] == name]
        return int(found)

    def awaits_at(self, app: str, text: str) -> list[Row]:
        """Return the awaits whose `where` is a line of the app that contains `text`."""
        lines = (APPS / app).read_text().splitlines()
        places = {f"{APPS / app}:{n}" for n, line in enumerate(lines, 1) if text in line}
        assert places
        return [row for row in self.awaits if row["where"] in places]


@dataclass
class Tracings:
    """The traces of this session: each program is recorded once per arguments and level."""

    folder: Path
    done: dict[tuple[object, ...], Traced] = field(default_factory=dict)

    def __call__(
        self,
        app: Path | str,
        *args: str,
        level: int = 3,
        also: tuple[int, ...] = (),
        python: str = sys.executable,
        around: tuple[str, ...] = (),
    ) -> Traced:
        """Return the trace of an app (a name in tests/apps, or a path) with these arguments.

        `around` is a command that runs the tracer.
        """
        key = (str(app), args, level, python, around)
        if key not in self.done:
            self.done[key] = self._record([python, str(APPS / app), *args], level, also, around)
        return self.done[key]

    def _record(
        self, program: list[str], level: int, also: tuple[int, ...], around: tuple[str, ...]
    ) -> Traced:
        out = self.folder / f"{len(self.done)}-{Path(program[1]).stem}.trace"
        options = ["-o", str(out), "--level", str(level)]
        options += [part for pid in also for part in ("--also", str(pid))]
        command = [*around, str(COMMAND), "run", *options, "--", *program]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
        assert done.returncode == 0, done.stderr
        return Traced(out, json.loads(done.stdout.splitlines()[-1]), done.stderr)


def facts(rows: list[dict[str, Any]]) -> Counter[tuple[Any, ...]]:
    """Count rows by whose they are, what they moved and how they ended."""
    return Counter(
        (
            row["task"] if "task" in row else row["task_name"],
            row["sent_bytes"],
            row["recv_bytes"],
            OUTCOME.get(row["outcome"], row["outcome"]),
        )
        for row in rows
    )


@pytest.fixture(scope="session")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Tracings:
    """Give the session's traces: call it with an app and its arguments."""
    return Tracings(tmp_path_factory.mktemp("traces"))


@pytest.fixture(scope="session")
def pools(traced: Tracings) -> Callable[[str], Traced]:
    """Give the trace of an asyncpg pool on a kind of loop, with both ends traced."""
    pytest.importorskip("asyncpg")

    @cache
    def pool(loop: str) -> Traced:
        with load_lab().private_postgres("lo") as lab:
            arguments = ("--dsn", lab.dsn, *on(loop))
            return traced("pool.py", *arguments, also=(lab.postmaster_pid,))

    return pool


@pytest.fixture(scope="session")
def pool(pools: Callable[[str], Traced]) -> Traced:
    """Give the trace of an asyncpg pool on asyncio's own loop."""
    return pools("asyncio")


def interpreter(*versions: str) -> str:
    """Return a CPython of one of these versions: ours, one on PATH or one we are told of.

    AWAITSCOPE_TEST_PYTHONS is a list of paths, separated by colons. None found: the test is
    skipped.
    """
    told = filter(None, os.environ.get("AWAITSCOPE_TEST_PYTHONS", "").split(":"))
    tell = "import sys; print('%d.%d' % sys.version_info[:2], sys.implementation.name)"
    for python in (sys.executable, *(shutil.which(f"python{v}") for v in versions), *told):
        if python is None:
            continue
        done = subprocess.run(
            [python, "-I", "-c", tell], capture_output=True, text=True, check=False
        )
        if done.stdout.split() in [[version, "cpython"] for version in versions]:
            return python
    wanted = " or ".join(versions)
    pytest.skip(f"no CPython {wanted} on PATH or in AWAITSCOPE_TEST_PYTHONS")


def load_lab() -> ModuleType:
    """Load the demos' lab as the command does."""
    return load_script(ROOT / "demos" / "lab.py")
