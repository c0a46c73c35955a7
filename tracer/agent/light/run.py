"""Runs: the steps of tasks and the callbacks that a loop runs, from begin to end: as run.c."""

from time import monotonic_ns

from . import records as r
from . import tasks
from .ring import announce, publish, ring, this_thread
from .texts import callback_name, send, sent

_MOST_SCHEDULED = 1 << 16

# when callbacks that are no task's step were scheduled, by their handle's address: their own and
# their arguments' address (compared, never followed), and the wake
_scheduled = {}
_last_run = 0


def run_serial():
    """Return the serial of a run."""
    global _last_run  # noqa: PLW0603 (a counter)
    _last_run += 1
    return _last_run


def remember(handle, callback, args, wake):
    """Keep the wake of a handle until it runs."""
    if len(_scheduled) >= _MOST_SCHEDULED:  # handles cancelled before they ran stay here
        _scheduled.pop(next(iter(_scheduled)), None)
    _scheduled[id(handle)] = (id(callback), id(args), wake)


def recall(handle, callback, args):
    """Return the wake of a handle, NOBODY if it is not known."""
    found = _scheduled.pop(id(handle), None)
    same = found is not None and found[0] == id(callback) and found[1] == id(args)
    return found[2] if same else tasks.NOBODY


class Run:
    """One run, a step or a callback, from begin to end. Runs nest."""

    __slots__ = (
        "begin_ns",
        "callback",
        "flags",
        "outer",
        "serial",
        "state",
        "task",
        "thread",
        "wake",
    )

    def begin(self):
        """Begin it now, in its thread."""
        if self.wake[2] and self.wake[2] != self.thread.tid:
            self.flags |= r.RUN_FROM_THREAD
        self.enter(self.thread, run_serial(), self.state.serial if self.state else 0)
        self.begin_ns = monotonic_ns()
        self.show()

    def end(self):
        """End it now, and write its record."""
        end_ns = monotonic_ns()
        try:
            if ring.recording or ring.ready():
                if self.state:
                    self.write_step(end_ns)
                else:
                    self.write_callback(end_ns)
        finally:
            self.leave()

    def enter(self, thread, serial, task):
        """Make it the current one of a thread; `task` is the serial of its task, 0 for none."""
        self.thread, self.serial = thread, serial
        self.outer = (thread.run, thread.task, thread.open)
        publish(thread, serial, task)

    def leave(self):
        """Make the one around it current again."""
        run, task, shown = self.outer
        thread = self.thread
        publish(thread, run, task)
        if thread.open is not shown:
            thread.open = shown
            if shown is None:
                ring.show(thread, 0, None)
            else:
                shown.show()

    def show(self):
        """Say that the thread is in it."""
        (wake_ns, waker, wake_tid), flags = self.wake, self.flags | r.RUN_OPEN
        thread, state = self.thread, self.state
        thread.open = self
        if state:
            ring.show(
                thread, r.KIND_STEP, r.STEP, self.begin_ns, thread.tid, 0, 0, flags, 0, wake_ns,
                self.serial, waker, state.serial, 0, 0, 0, 0, wake_tid,
            )  # fmt: skip
        else:
            ring.show(
                thread, r.KIND_CALLBACK, r.CALLBACK, self.begin_ns, thread.tid, 0, 0, flags, 0,
                wake_ns, self.serial, waker, 0, wake_tid,
            )  # fmt: skip

    def write_step(self, end_ns):
        """Write the record of a step."""
        (wake_ns, waker, wake_tid), state = self.wake, self.state
        how, awaited, same = tasks.park(state, self.task)
        where, leaf = state.where, state.leaf
        if where not in sent:
            send(where)
        if leaf not in sent:
            send(leaf)
        record = r.STEP.pack(
            self.begin_ns, self.thread.tid, how, r.KIND_STEP, self.flags | same, end_ns, wake_ns,
            self.serial, waker, state.serial, awaited, where, leaf,
            state.row if how < r.HOW_DONE else 0, wake_tid,
        )  # fmt: skip
        ring.write(r.KIND_STEP, record)

    def write_callback(self, end_ns):
        """Write the record of a callback."""
        wake_ns, waker, wake_tid = self.wake
        record = r.CALLBACK.pack(
            self.begin_ns, self.thread.tid, 0, r.KIND_CALLBACK, self.flags, end_ns, wake_ns,
            self.serial, waker, send(callback_name(self.callback)), wake_tid,
        )  # fmt: skip
        ring.write(r.KIND_CALLBACK, record)


def run_of(loop, callback, args):
    """Return the run of a callback that a loop is about to call; without a state it is no step."""
    run, thread = Run(), this_thread()
    if thread.announced != ring.generation:
        announce(thread)
    run.thread, run.callback, run.flags, run.state = thread, callback, 0, None
    tasks.see_loop(loop, thread)
    run.task = task = tasks.task_of(callback)
    if task is None:
        run.wake = tasks.NOBODY
        return run
    run.state = state = tasks.see(task, loop, thread)
    run.wake, state.wake = state.wake, tasks.NOBODY
    run.flags = tasks.resume_flags(task, callback, args)
    if state.named != ring.generation:
        tasks.write_name(state, task, thread.tid)
    return run
