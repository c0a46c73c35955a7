"""What every test may use, and which tests can run on this machine.

The reasons for a skip are the doctor's. AWAITSCOPE_REQUIRE names markers (bpf,netns,postgres)
whose skips are failures: a green run on a machine that sets it hides nothing.
"""

from __future__ import annotations

import os
import time
from functools import cache
from typing import TYPE_CHECKING

import pytest

from tracer.capture.hooks import HOOKS
from tracer.system import checks
from tracer.system.kernel import bpf_program_ids

if TYPE_CHECKING:
    from collections.abc import Iterator

GUARDED = ("bpf", "netns", "postgres")


@cache
def obstacle(marker: str) -> str | None:
    """Return why tests with this marker cannot run here, in the doctor's words."""
    machine = checks.Machine()
    if marker == "bpf":
        wanted = [
            checks.Tracepoint(hook.name, hook.args, hook.required, hook.function)
            for hook in HOOKS
            if hook.program
        ]
        found = checks.first_failure(checks.run_checks(machine, wanted))
    else:
        look = {"netns": checks.network_namespaces, "postgres": checks.postgres}[marker]
        check = look(machine)
        found = check if check.status != "ok" else None
    return f"{found.name}: {found.seen}; fix: {found.fix}" if found else None


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test that cannot run here, or fail it where that is not allowed."""
    required = os.environ.get("AWAITSCOPE_REQUIRE", "").split(",")
    for marker in GUARDED:
        if item.get_closest_marker(marker) is None:
            continue
        reason = obstacle(marker)
        if reason and marker in required:
            pytest.fail(f"AWAITSCOPE_REQUIRE has {marker}, but {reason}", pytrace=False)
        if reason:
            pytest.skip(reason)


@pytest.fixture
def bpf_left_clean() -> Iterator[None]:
    """Fail a test that leaves a BPF program in the kernel."""
    before = set(bpf_program_ids())
    yield
    deadline = time.monotonic() + 5  # programs are freed after an RCU grace period
    while (left := set(bpf_program_ids()) - before) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left, f"BPF programs {sorted(left)} are still loaded"
