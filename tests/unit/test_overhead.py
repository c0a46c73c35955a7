"""What `info` says that a recording cost, and how much memory the rings may take."""

from __future__ import annotations

from typing import Any

import pytest

from tracer.capture.ring import default_ring_bytes
from tracer.report.info import overhead

MIB = 1 << 20


def test_rings_are_bounded_together() -> None:
    """A power of two each, 16 MiB at most, 128 MiB for all; 256 KiB at least."""
    for cpus in range(1, 8193):
        size = default_ring_bytes(cpus)
        assert size & (size - 1) == 0
        assert 256 << 10 <= size <= 16 * MIB
        assert size * cpus <= 128 * MIB or size == 256 << 10
        assert size * 2 * cpus > 128 * MIB or size == 16 * MIB, "smaller than need be"


def manifest(**more: Any) -> dict[str, Any]:
    """Return what `info` reads: two seconds, a million events, half a second of reader."""
    return {
        "start_ns": 5_000_000_000,
        "end_ns": 7_000_000_000,
        "events": {"syscall": {"written": 750_000}, "step": {"written": 250_000}},
        "reader_cpu_at_start_s": 1.5,
        "reader_cpu_s": 2.0,
        **more,
    }


def test_the_programs_cost_is_that_of_the_sampled_time() -> None:
    """Shares and rates are of the time in which the kernel measured, not of the recording."""
    hooks = [
        {"hook": "sys_exit", "run_ns": 4_000_000, "runs": 20_000},
        {"hook": "sched_switch", "run_ns": 9_000_000, "runs": 30_000},
        {"hook": "napi_poll", "run_ns": 0, "runs": 0},
    ]
    seen = overhead(manifest(run_times={"sampled_ns": 100_000_000, "hooks": hooks}))
    assert seen == {
        "events_per_s": 500_000,
        "reader_cpu_s": 0.5,
        "reader_cpu_share": 0.25,
        "reader_cpu_s_per_million_events": 0.5,
        "bpf": {
            "sampled_s": 0.1,
            "cpu_share": 0.13,
            "runs_per_s": 500_000,
            "hooks": [
                {
                    "hook": "sched_switch",
                    "runs_per_s": 300_000,
                    "ns_per_run": 300,
                    "cpu_share": 0.09,
                },
                {"hook": "sys_exit", "runs_per_s": 200_000, "ns_per_run": 200, "cpu_share": 0.04},
            ],
        },
        "bpf_reason": None,
    }


@pytest.mark.parametrize(
    ("times", "reason"),
    [
        ({"run_times": {"reason": "no permission"}}, "no permission"),
        ({"run_times": {"sampled_ns": 0, "hooks": []}}, "too short"),
        ({}, "died"),
    ],
)
def test_no_statistics_have_a_reason(times: dict[str, Any], reason: str) -> None:
    """Where the kernel refused, the run was too short or the tracer died, it is said."""
    seen = overhead(manifest(**times))
    assert seen["bpf"] is None
    assert reason in seen["bpf_reason"]
