"""What the correlated tables' columns mean; record.h describes the event tables."""

from __future__ import annotations

from tracer.correlate.words import STAGES
from tracer.store.losses import LOSS_DOC
from tracer.store.samples import SAMPLE_DOC

_CUTS = (
    "the step begins in which the task first suspended",
    "first send on the descriptor entered",
    "the later of: last send returned, the task parked",
    "first packet of the answer reached this host",
    "the socket became readable; a timer's deadline; the waking call",
    "epoll_wait (poll, select) returned in the loop's thread",
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
        "agent": "its agent, as in `task` and `step`",
        "serial": "its number there: task.task, step.task",
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
        "throttled_ns": "its cgroup's CPU quota was used up, ns",
        "gil_ns": "the worker waited for the GIL, ns",
        "blocked_ns": "the worker was asleep in a system call, ns",
    },
    "hold": {
        "hold_id": "number of the hold in order of its start; shorter than 1 ms has no row",
        "kind": "step, callback, or iteration: from a wait's return to its last callback",
        "task_id": "the task whose step it is, NULL for callbacks and iterations",
        "name": "qualified name of the callback",
        "where": "file:line in the user's code, see where_from",
        "where_from": "how that is known: sampled = seen there most often while it lasted,"
        " resumed = there the step went on from its last await, defined = its coroutine begins"
        " there",
        "leaf": "sampled: file:line and name of the innermost Python frame",
        "chain": "sampled: all frames from there down to the loop, a line each",
        "samples": "how often it was looked into (runs and iterations over 20 ms, every 20 ms)",
        "c_function": "sampled: what the innermost frame called; gc: garbage was being collected",
        "c_function_from": "how that is known: sampled = seen most often while it lasted; or why"
        " not: none_called = it was in Python code or an operator, not_sampled = too short,"
        " not_known = the interpreter's stack could not be read, or the object has no C name",
        "tgid": "process",
        "tid": "the loop's thread",
        "start_ns": "begin, CLOCK_MONOTONIC ns",
        "dur_ns": "how long the loop did nothing else, ns",
        "own_ns": "of these, not in a run inside it that has a row of its own (eager tasks), ns",
        "runs": "steps and callbacks in it: 1 but for iterations",
        "longest_ns": "the longest of them, ns",
        "cause": "the largest part; many_callbacks for an iteration that worked",
        "on_cpu_ns": "the thread was on a CPU, ns",
        "syscall_ns": "blocked in a system call or a page fault, ns",
        "gil_ns": "waited for the GIL, ns; NULL: not told apart, in syscall_ns",
        "runq_ns": "runnable, but others had the CPU, ns",
        "throttled_ns": "its cgroup's CPU quota was used up, ns; NULL: not told apart, in runq_ns",
        "complete": "nothing was lost meanwhile, and its end was seen",
        "reasons": "bit set of reason codes",
        "task_name": "name of the task",
        "coroutine": "qualified name of its coroutine",
    },
    "await_syscall": {
        "await_id": "await.await_id",
        "nr": "number of a system call that is on no socket; an await without one has no row",
        "count": "how often the await's own steps and the callbacks of its receives made it",
        "dur_ns": "how long in all, ns",
    },
    "loss": LOSS_DOC,
    "sample": SAMPLE_DOC,
}
