"""The ladder of a hook: what stands in for a tracepoint that a kernel lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tracer.capture import loader as module
from tracer.capture import offsets
from tracer.capture.hooks import HOOKS, Hook
from tracer.capture.loader import Loader

if TYPE_CHECKING:
    from tracer.capture.rungs import Probe

pytestmark = [pytest.mark.bpf, pytest.mark.usefixtures("bpf_left_clean")]


def attached(monkeypatch: pytest.MonkeyPatch, *hooks: Hook) -> list[Probe]:
    """Load the probes and attach only these hooks; return what became of them."""
    monkeypatch.setattr(module, "HOOKS", hooks)
    loader = Loader(3, 1 << 16)
    try:
        loader.attach()
        return loader.probes
    finally:
        loader.close()


def test_a_tracepoint_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hook sits on its raw tracepoint where the kernel has it."""
    (probe,) = attached(monkeypatch, *(hook for hook in HOOKS if hook.name == "tcp_probe"))
    assert (probe.rung, probe.reason) == ("raw_tracepoint", None)


def test_a_function_stands_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its tracepoint a hook sits on the function; else each rung says why it cannot."""
    lacking = Hook("no_such_tracepoint", "on_sk_data_ready", 1, 2, function="sock_def_readable")
    (probe,) = attached(monkeypatch, lacking)
    if probe.rung == "absent":  # this kernel refuses fentry and has no kprobes
        rungs = [part.partition(":")[0] for part in (probe.reason or "").split("; ")]
        assert rungs == ["raw_tracepoint", "fentry", "kprobe"]
    else:
        assert probe.rung in ("fentry", "kprobe")
        assert probe.reason is None


def test_an_unknown_place_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hook without a function has no further rung."""
    (probe,) = attached(monkeypatch, Hook("no_such_tracepoint", "on_tcp_probe", 2, 2))
    assert probe.rung == "absent"
    assert probe.reason == "raw_tracepoint: this kernel has no such tracepoint"


def test_a_struct_that_moved_away_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the BTF lacks what an optional hook reads, that hook alone is absent, and says so."""
    monkeypatch.setitem(offsets._OPTIONAL, "O_EPITEM_FILE", ("epitem", "no_such_member"))
    (probe,) = attached(monkeypatch, *(hook for hook in HOOKS if hook.name == "ep_poll_callback"))
    assert probe.rung == "absent"
    assert "lacks a struct" in (probe.reason or "")
