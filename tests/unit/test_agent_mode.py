"""Which agent a program gets, in C or in Python, or none, and why."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tracer import agent
from tracer.agent import build

if TYPE_CHECKING:
    from tests.unit.agent_ring import Lab


def test_the_interpreter_is_known(lab: Lab) -> None:
    """The agent in C tells where the GIL and the frames are, for each CPython."""
    lab.run("import asyncio; asyncio.run(asyncio.sleep(0))")
    (ring,) = lab.rings()
    head = ring.head
    if lab.light:
        assert head["gil"] == head["code_type"] == 0
        return
    assert head["gil"] < head["gil_holder"] < head["gil"] + head["gil_bytes"]
    assert head["gil_bytes"] < 1 << 16
    assert head["code_type"]
    assert head["base"].any()


def test_failure_leaves_a_reason_and_the_app_alone(lab: Lab) -> None:
    """Where it cannot work the agent says why where it can, and the app runs on."""
    program = "import asyncio.base_events\nprint('fine')\n"
    assert lab.run(program, "-X", "importtime").stdout == "fine\n"
    assert lab.reasons() == []
    lab.write("own/asyncio/__init__.py", "")
    lab.write("own/asyncio/base_events.py", "")
    done = lab.run(program, PYTHONPATH=str(lab.folder / "own"))
    assert (done.stdout, done.stderr) == ("fine\n", "")
    assert [text.split(":")[0] for text in lab.reasons()] == ["hooks_failed"]
    lab.live = lab.folder / "nowhere"
    done = lab.run(program)
    assert (done.stdout, done.stderr) == ("fine\n", "")


def test_light_mode_says_why(lab: Lab) -> None:
    """The ring tells which agent wrote it, and why it is not the one in C."""
    program = "import asyncio\nasyncio.run(asyncio.sleep(0))\n"
    lab.run(program)
    lab.cache = lab.folder / "unsafe"
    lab.cache.mkdir()
    lab.cache.chmod(0o777)
    lab.run(program)
    why = [(int(ring.head["mode"]), int(ring.head["why"])) for ring in lab.rings()]
    first = (2, 1 + build.REASONS.index("no_compiler")) if lab.light else (1, 0)
    second = first if lab.light else (2, 1 + build.REASONS.index("unsafe_cache"))
    assert why == [first, second]


def test_a_built_agent_needs_no_compiler(lab: Lab, agent_cache: Path) -> None:
    """Where the agent was built before, it is used whether or not a compiler is there."""
    assert agent.prebuild(Path(lab.python), agent_cache) is None
    lab.cache, lab.light = agent_cache, True
    lab.run("import asyncio\nasyncio.run(asyncio.sleep(0))\n")
    (ring,) = lab.rings()
    assert int(ring.head["mode"]) == 1


def test_python_of_sees_through_scripts(tmp_path: Path) -> None:
    """A script's interpreter counts, also behind env; other commands have none."""
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    lines = {"a": f"#!{sys.executable}", "b": "#!/usr/bin/env python3", "c": "#!/bin/sh"}
    for name, line in lines.items():
        script = tmp_path / name
        script.write_text(line + "\n")
        script.chmod(0o755)
    (tmp_path / "python3").symlink_to(sys.executable)
    assert str(agent.python_of(["a"], env)) == sys.executable
    assert str(agent.python_of(["b"], env)) == str(tmp_path / "python3")
    assert agent.python_of(["c"], env) is None
    assert agent.python_of(["no-such-command"], env) is None
