"""Records that no probe writes: threads there at the start, calls still open at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tracer.events.header import load as load_header
from tracer.system import syscalls

if TYPE_CHECKING:
    from tracer.capture.also import Thread

_NO_SYSCALL = 65535


def _slot(name: str, values: dict[str, Any]) -> bytes:
    """Return one 64-byte ring slot holding a record."""
    record = load_header().records[name]
    row = np.zeros((), record.dtype)
    row["kind"] = record.kind
    for column, value in values.items():
        row[column] = value
    return record.dtype.itemsize.to_bytes(8, "little") + row.tobytes()


def seed_records(threads: list[Thread]) -> bytes:
    """Return a THREAD record with what = THREAD_SEED for each thread, at time 0."""
    seed = load_header().constants["THREAD_SEED"]
    return b"".join(
        _slot(
            "thread",
            {"tid": t.tid, "tgid": t.tgid, "ns_tid": t.tid, "what": seed, "comm": t.comm.encode()},
        )
        for t in threads
    )


def gap_records(gaps: list[dict[str, int]]) -> bytes:
    """Return a GAP record for each loss that was still untold when the recording ended."""
    return b"".join(
        _slot(
            "gap",
            {
                "ts_ns": gap["first_ns"],
                "end_ns": gap["last_ns"],
                "cpu": gap["cpu"],
                "lost_count": gap["count"],
                "kinds": gap["kinds"],
            },
        )
        for gap in gaps
    )


def open_records(threads: dict[int, Any], end_ns: int) -> bytes:
    """Return what had not finished at `end_ns`, each with FLAG_OPEN and a duration up to then.

    Args:
        threads: tid -> `struct thread_state` as the kernel left it.
        end_ns: end of the recording, CLOCK_MONOTONIC.

    """
    is_open = load_header().constants["FLAG_OPEN"]
    slots = []
    for tid, state in threads.items():
        if state.enter_ns and state.nr != _NO_SYSCALL:
            head = {
                "ts_ns": state.enter_ns,
                "tid": tid,
                "flags": is_open,
                "dur_ns": max(0, end_ns - state.enter_ns),
                "nr": state.nr,
            }
            kind = getattr(state, "class")
            if kind == syscalls.EPOLL_WAIT:
                more = {"epfd": state.fd, "timeout_ms": state.timeout_ms}
                slots.append(_slot("epoll_wait", head | more))
            elif (kind != syscalls.OTHER and state.keep) or head["dur_ns"] > 1_000_000:
                more = {"fd": state.fd, "sock": state.sock, "task": state.task, "seq": state.seq}
                slots.append(_slot("syscall", head | more))
        if state.out_ns:
            woken = state.wake_ns - state.out_ns if state.wake_ns >= state.out_ns else 0
            slots.append(
                _slot(
                    "off_cpu",
                    {
                        "ts_ns": state.out_ns,
                        "tid": tid,
                        "cpu": state.out_cpu,
                        "flags": is_open,
                        "dur_ns": max(0, end_ns - state.out_ns),
                        "wake_ns": woken if state.out_state else 0,
                        "state": state.out_state,
                        "nr": state.nr,
                        "why": state.why,
                    },
                )
            )
    return b"".join(slots)
