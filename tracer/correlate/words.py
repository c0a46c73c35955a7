"""The fixed words of an await: stages, causes of lag, kinds. Imports nothing."""

from __future__ import annotations

STAGES = ("prepare", "send", "remote", "receive", "wake", "queue", "read", "resume")
LAG = ("loop_busy_ns", "runq_ns", "throttled_ns", "gil_ns", "syscall_ns", "loop_ns")
KINDS = (
    "socket",
    "timer",
    "task",
    "future",
    "lock",
    "event",
    "queue",
    "thread",
    "subprocess",
    "signal",
    "callback",
    "yield",
    "unknown",
)
