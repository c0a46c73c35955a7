"""Run programs with the agent and read what it wrote: no root, no kernel side."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.unpacked import NEWEST, unpacked
from tracer import agent
from tracer.events import header

if TYPE_CHECKING:
    from pathlib import Path

_HEADER_BYTES = 4096
_RECORD_BYTES = 64
_KIND_AT = 14
PYTHONS = [
    sys.executable,
    pytest.param(NEWEST, marks=pytest.mark.debian),
    *filter(None, os.environ.get("AWAITSCOPE_TEST_PYTHONS", "").split(":")),
]


def path_of(python: str) -> str:
    """Return the path of one of PYTHONS."""
    return str(unpacked(python)) if python == NEWEST else python


@dataclass
class Ring:
    """One ring file: its header and its records by name, each a dict of columns."""

    head: Any
    records: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    strings: dict[int, str] = field(default_factory=dict)

    def of(self, name: str) -> list[dict[str, Any]]:
        """Return the records of one event in the order they were written."""
        return self.records.get(name, [])

    def task(self, name: str) -> int:
        """Return the serial of the task with this name."""
        (serial,) = [r["task"] for r in self.of("task_name") if r["name"] == name.encode()]
        return int(serial)

    def steps(self, name: str) -> list[dict[str, Any]]:
        """Return the steps of the task with this name."""
        serial = self.task(name)
        return [r for r in self.of("step") if r["task"] == serial]

    def rows(self, name: str) -> list[int]:
        """Return the row of each suspension of a task."""
        return [r["row"] for r in self.steps(name) if r["row"]]


def read(path: Path) -> Ring:
    """Read a ring file that nobody writes any more and nobody drained."""
    raw = path.read_bytes()
    known = header.load()
    head = np.frombuffer(raw, dtype=known.records["agent_ring"].dtype, count=1)[0]
    ring = Ring(head)
    texts: dict[int, bytearray] = {}
    for index in range(int(head["head"])):
        at = _HEADER_BYTES + index * _RECORD_BYTES
        data = raw[at : at + _RECORD_BYTES]
        kind = known.by_kind(data[_KIND_AT])
        row = np.frombuffer(data, dtype=kind.dtype)[0]
        record = dict(zip(kind.dtype.names or (), row.tolist(), strict=True))
        ring.records.setdefault(kind.name, []).append(record)
        if kind.name == "string":
            text = texts.setdefault(record["id"], bytearray(record["len"]))
            first = record["first"]
            rest = min(40, record["len"] - first)
            text[first : first + rest] = data[24 : 24 + rest]
    ring.strings = {number: text.decode() for number, text in texts.items()}
    return ring


class Lab:
    """A directory with a program, a live directory and a cache of built agents."""

    def __init__(self, python: str, folder: Path, cache: Path, *, light: bool) -> None:
        """Keep the paths; the live directory is made. In light mode no compiler can be found."""
        self.python = python
        self.light = light
        self.folder = folder
        self.cache = cache
        self.live = folder / "live"
        self.live.mkdir()

    def write(self, name: str, text: str) -> Path:
        """Write a file of the program and return its path."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def run(
        self, text: str, *flags: str, traced: bool = True, slots: int = 4096, **extra: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end; it must exit with 0."""
        base = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "AWAITSCOPE"))}
        env = {**base, **extra}
        if traced:
            env = agent.environment(env, self.live, self.cache, slots)
            if self.light:
                env.pop("CC", None)
                env["PATH"] = str(self.folder / "no compiler")
        command = [self.python, *flags, str(self.write("program.py", text))]
        return subprocess.run(
            command, env=env, capture_output=True, text=True, check=True, timeout=60
        )

    def rings(self) -> list[Ring]:
        """Return the rings in the order in which they were opened."""
        rings = [read(path) for path in self.live.glob("*.ring")]
        return sorted(rings, key=lambda ring: int(ring.head["start_ns"]))

    def reasons(self) -> list[str]:
        """Return why processes have no agent."""
        return [path.read_text().strip() for path in self.live.glob("*.none")]


@pytest.fixture(scope="session")
def agent_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a cache in which the agent of each Python is built once."""
    cache = tmp_path_factory.mktemp("agents")
    cache.chmod(0o700)
    return cache


def _in_c(python: str, folder: Path, cache: Path) -> Lab:
    python = path_of(python)
    reason = agent.prebuild(python, cache)
    if reason and reason.startswith(("no_compiler", "no_headers")):
        pytest.skip(reason)
    assert reason is None
    return Lab(python, folder, cache, light=False)


@pytest.fixture(params=PYTHONS)
def lab_in_c(request: pytest.FixtureRequest, tmp_path: Path, agent_cache: Path) -> Lab:
    """Return a lab for one Python with the agent in C."""
    return _in_c(request.param, tmp_path, agent_cache)


@pytest.fixture(params=[False, True], ids=["c", "light"])
def light(request: pytest.FixtureRequest) -> bool:
    """Say whether the agent is the one in Python."""
    return bool(request.param)


@pytest.fixture(params=PYTHONS)
def lab(request: pytest.FixtureRequest, tmp_path: Path, agent_cache: Path, *, light: bool) -> Lab:
    """Return a lab for one Python and one agent: the one in C, or in light mode that in Python."""
    if light:
        return Lab(path_of(request.param), tmp_path, tmp_path / "empty", light=True)
    return _in_c(request.param, tmp_path, agent_cache)
