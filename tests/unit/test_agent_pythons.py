"""Interpreters that the agent does not know: it says so and stays out, the app runs on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tracer import agent

if TYPE_CHECKING:
    from tests.unit.agent_ring import Lab

# pretends to be another interpreter, then does what `site` does, then runs a loop
PROGRAM = """
import sys, types
{pretence}
sys.path.insert(0, {bootstrap!r})
try:
    import sitecustomize
except ImportError:
    pass
import asyncio
asyncio.run(asyncio.sleep(0))
print("fine")
"""
KIND = "sys.implementation = types.SimpleNamespace(name={!r}, version={}, cache_tag='x-1')"
UNKNOWN = {
    "cpython 3.16.0": (
        "sys.version_info = (3, 16, 0, 'final', 0)\n" + KIND.format("cpython", (3, 16, 0)),
        "CPython 3.16.0; the agent knows 3.9 to 3.15",
    ),
    "cpython 3.8.20": (
        "sys.version_info = (3, 8, 20, 'final', 0)\n" + KIND.format("cpython", (3, 8, 20)),
        "CPython 3.8.20; the agent knows 3.9 to 3.15",
    ),
    "free-threaded": ("sys.abiflags = 't'", "free-threaded build"),
    "pypy": (KIND.format("pypy", (8, 0, 1, "final", 0)), "pypy 8.0.1, not CPython"),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_unknown_interpreter_gets_no_agent(lab: Lab, name: str) -> None:
    """It is told which one it is, nothing is hooked, and the program runs as ever."""
    pretence, reason = UNKNOWN[name]
    program = PROGRAM.format(pretence=pretence, bootstrap=str(agent.bootstrap_dir()))
    assert lab.run(program, "-S").stdout == "fine\n"
    assert lab.reasons() == [f"unsupported_python: {reason}"]
    assert lab.rings() == []


def test_a_known_interpreter_gets_one_that_way(lab: Lab) -> None:
    """What the test above does without pretending anything leads to an agent."""
    program = PROGRAM.format(pretence="", bootstrap=str(agent.bootstrap_dir()))
    assert lab.run(program, "-S").stdout == "fine\n"
    assert lab.reasons() == []
    assert len(lab.rings()) == 1
