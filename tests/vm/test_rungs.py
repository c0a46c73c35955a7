"""The lower rungs of the ladder, on a kernel that has them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from loads import awaits_at
from machine import Guest, Lab, run_guests
from tracing import Traced, facts

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(600)]
FUNCTIONS = ("sk_data_ready", "ep_poll_callback", "tcp_sendmsg_locked")
# Linux 6.1 loads fentry programs; without that rung it falls to the next one
JOB = """
cat >run.py <<'P'
from tracer.capture.rungs import Rungs
from tracer.cli.main import main

Rungs._fentry = lambda self, hook: "switched off"
main(["run", "-o", "/lab/out/load.trace", "--", "python3", "src/tests/apps/streams.py"])
P
python3 run.py
"""


def test_kprobes_stand_in(bookworm: Lab, say: Callable[[str], None], tmp_path: Path) -> None:
    """With kprobes every read over streams has its task and its bytes, too."""
    done = run_guests(bookworm, [Guest("one", "10.0.2.15/24", JOB)], tmp_path, say)["one"]
    assert done.code == 0, done.stderr
    load = Traced(done.folder / "load.trace", json.loads(done.stdout.splitlines()[-1]))
    rungs = {probe["hook"]: probe["rung"] for probe in load.info["probes"]}
    assert {hook: rungs[hook] for hook in FUNCTIONS} == dict.fromkeys(FUNCTIONS, "kprobe")
    assert load.info["events"]["receive"]["written"] > 0
    assert load.info["events"]["epoll_callback"]["written"] > 0
    rows = awaits_at(load, "streams.py", "await reader.readexactly(HEADER")
    rows += awaits_at(load, "streams.py", "await self.reader.readexactly(")
    assert facts(rows) == facts(load.truth["rows"] + load.truth["server_rows"])
