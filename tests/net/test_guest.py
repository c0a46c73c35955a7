"""A program behaves the same with awaitscope as without: CPython's own tests of asyncio."""

from __future__ import annotations

import pytest

from tests.guest import compare

PYTHON = "/usr/bin/python3"
# its files that are about tasks, futures and loops, and take seconds
FILES = ("tasks", "futures", "base_events", "timeouts", "runners", "locks", "queues")
QUICK = ("futures", "timeouts", "runners", "locks", "queues")


@pytest.mark.bpf
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("files", "light", "least"), [(FILES, False, 800), (QUICK, True, 250)])
def test_cpythons_own_tests(files: tuple[str, ...], least: int, *, light: bool) -> None:
    """Test by test the same comes of them."""
    chosen = [part for name in files for part in ("-m", f"test.test_asyncio.test_{name}.*")]
    chosen += ["-i", "*del_collect*"]  # a whole garbage collection a hundred times
    plain, differs, flaky = compare("cpython", PYTHON, *chosen, light=light)
    assert len(plain) > least
    assert not differs
    assert len(flaky) < 5
