"""What the correlated tables' columns mean; record.h describes the event tables."""

from __future__ import annotations

from tracer.correlate.words import STAGES
from tracer.store.losses import LOSS_DOC

_CUTS = (
    "the step begins in which the task first suspended",
    "first send on the descriptor entered",
    "the later of: last send returned, the task parked",
    "first packet of the answer reached this host",
    "the socket became readable; a timer's deadline; the waking call",
    "epoll_wait returned in the loop's thread",
    "the receive (or send) that woke the task entered",
    "the task was put on the ready queue",
    "the task's step began again",
)
_STAGE_DOC = {f"{name}_ns": f"stage {name}, ns" for name in STAGES}
DOCS: dict[str, dict[str, str]] = {
    "await": {
        "await_id": "number of the await in order of its start",
        "task_id": "awaitscope's number of the task, NULL if no task was woken",
        "where": "file:line of the await in the user frame",
        "leaf": "innermost function of the await chain",
        "kind": "what was waited for",
        "sock": "socket id (socket.sock), 0 none",
        "fds": "descriptors used",
        "peer": "remote address",
        "sent_bytes": "bytes that system calls sent for this row",
        "recv_bytes": "bytes that system calls received for this row",
        "start_ns": "t0, CLOCK_MONOTONIC ns",
        "suspend_ns": "the task was parked, ns",
        "end_ns": "t8, ns",
        "total_ns": "end_ns - start_ns",
        "reasons": "bit set of reason codes",
        "legs": "trips and other parts of this await",
        **_STAGE_DOC,
    },
    "leg": {
        "await_id": "await.await_id",
        "trip": "number of the leg within its await, from 1",
        "by": "how it ended (number)",
        "observed_steps": "how many of the 13 steps have their proof in the trace",
        "work_id": "the work of an executor that ended it (work.id)",
        **{f"t{k}_ns": text for k, text in enumerate(_CUTS)},
        **_STAGE_DOC,
    },
    "task_total": {
        "task_id": "awaitscope's number of the task, from 1 in order of birth",
        "cpu_ns": "on-CPU time of its steps, ns",
        "longest_step_ns": "longest step: how long it held the loop, ns",
    },
    "work_total": {
        "work_id": "work.id: what a loop gave to an executor",
        "await_id": "the await that its end ended, NULL if none did",
        "task_id": "the task that gave it, NULL if none did",
        "function": "qualified name of the function",
        "tgid": "process of the worker, NULL if it is not known",
        "tid": "worker thread, NULL if it is not known",
        "given_ns": "run_in_executor was called, CLOCK_MONOTONIC ns",
        "begin_ns": "a worker began it, ns",
        "end_ns": "it returned or raised, ns",
        "queued_ns": "it waited for a free worker, ns",
        "cpu_ns": "the worker was on a CPU, ns",
        "runq_ns": "the worker was runnable and not running, ns",
        "blocked_ns": "the worker was asleep in a system call (or waiting for the GIL), ns",
    },
    "loss": LOSS_DOC,
}
