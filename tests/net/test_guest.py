"""A program behaves the same with awaitscope as without: CPython's own tests of asyncio."""

from __future__ import annotations

import pytest

from tests.guest import compare

PYTHON = "/usr/bin/python3"
# its files that are about tasks, futures and loops, and take seconds
FILES = ("tasks", "futures", "base_events", "timeouts", "runners", "locks", "queues")


@pytest.mark.bpf
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_cpythons_own_tests() -> None:
    """Test by test the same comes of them."""
    chosen = [part for name in FILES for part in ("-m", f"test.test_asyncio.test_{name}.*")]
    chosen += ["-i", "*del_collect*"]  # a whole garbage collection a hundred times
    plain, differs, flaky = compare("cpython", PYTHON, *chosen)
    assert len(plain) > 800
    assert not differs
    assert len(flaky) < 5
