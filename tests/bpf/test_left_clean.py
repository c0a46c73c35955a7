"""The check that nothing is left in the kernel finds what is left, and nobody else's objects."""

from __future__ import annotations

import subprocess
import sys

import leftovers
import pytest
from bpf_scope import own_environment

from tracer.system.kernel import bpf_object_ids

pytestmark = pytest.mark.bpf
# loads and attaches as a tracer does, says so, and stays until its input ends
TRACER = """\
import sys
from tracer.capture.loader import Loader
loader = Loader(level=3, ring_bytes=4096)
loader.attach()
print("armed", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("ours", [True, False])
def test_what_a_tracer_holds_is_left_unless_it_is_anothers(
    monkeypatch: pytest.MonkeyPatch, *, ours: bool
) -> None:
    """Programs, maps and links of a process that a test started are found, another's are not."""
    monkeypatch.setattr(leftovers, "GRACE_S", 0.1)
    before = bpf_object_ids()
    process = subprocess.Popen(
        [sys.executable, "-c", TRACER],
        env=own_environment(**dict([leftovers.MARK] if ours else [])),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout
    try:
        assert process.stdout.readline() == b"armed\n"
        left = leftovers.wait_for_none(before)
    finally:
        process.communicate()
    assert {kind for kind, _ in left} == ({"prog", "map", "link"} if ours else set())
