"""The fixed words of awaits and holds: stages, causes, kinds. Imports nothing."""

from __future__ import annotations

STAGES = ("prepare", "send", "remote", "receive", "wake", "queue", "read", "resume")
# Columns that follow from stored ones, by table. The leg table has the cuts t0..t8; a stage goes
# from its cut to the next one that is known.
DERIVED = {
    "await": ("end_ns - start_ns AS total_ns",),
    "leg": tuple(
        f"coalesce({', '.join(f't{after}_ns' for after in range(cut + 1, 9))}) - t{cut}_ns"
        f" AS {name}_ns"
        for cut, name in enumerate(STAGES)
    ),
}
LAG = ("loop_busy_ns", "runq_ns", "throttled_ns", "gil_ns", "syscall_ns", "loop_ns")
# what a loop's thread did while one run held it, and the cause that is named if it is the largest
HELD_BY = {
    "on_cpu_ns": "on_cpu",
    "syscall_ns": "syscall",
    "gil_ns": "gil",
    "runq_ns": "preempted",
    "throttled_ns": "throttled",
}
MANY_CALLBACKS = "many_callbacks"
LIBUV = "libuv"  # the name of what libuv called by itself, see native.py
LONG_HOLD_NS = 50_000_000  # what holds a loop longer is worth a row, unless told otherwise
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
