"""What every test may use, and which tests can run on this machine.

The reasons for a skip are the doctor's. AWAITSCOPE_REQUIRE names markers (bpf,netns,postgres,…)
whose skips are failures: a green run on a machine that sets it hides nothing.
"""

from __future__ import annotations

import os
import shutil
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import quota, unpacked
from tracer.capture.hooks import HOOKS
from tracer.system import checks
from tracer.system.kernel import bpf_object_ids

sys.path.append(str(Path(__file__).parent))
import leftovers

if TYPE_CHECKING:
    from collections.abc import Iterator

GUARDED = ("bpf", "netns", "postgres", "quota", "vm", "browser", "debian")
VM_NEEDS = ("qemu-system-x86_64", "mmdebstrap", "mke2fs", "busybox", "depmod", "cpio")


@cache
def obstacle(marker: str) -> str | None:
    """Return why tests with this marker cannot run here, in the doctor's words."""
    if marker == "quota":
        return quota.obstacle()
    if marker == "debian":
        return unpacked.obstacle()
    if marker == "browser":
        return None if shutil.which("chromium") else "there is no chromium; fix: make setup-test"
    if marker == "vm":
        missing = [name for name in VM_NEEDS if shutil.which(name) is None]
        if os.geteuid() == 0 and not missing:
            return None
        return f"guests: not root, or missing: {', '.join(missing)}; fix: sudo make setup-test"
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


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --update-golden."""
    parser.addoption(
        "--update-golden", action="store_true", help="write tests/data/golden anew; read the diff"
    )


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
def bpf_left_clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail a test that leaves a BPF program, map or link in the kernel."""
    monkeypatch.setenv(*leftovers.MARK)
    before = bpf_object_ids()
    yield
    left = leftovers.wait_for_none(before)
    assert not left, f"still in the kernel: {sorted(left)}"
