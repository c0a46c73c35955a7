"""BaseEventLoop.create_task, where tasks can start eagerly: as eager.c.

Their first step runs inside it, and no callback tells of it.
"""

from time import monotonic_ns

from . import records as r
from . import tasks
from .ready import native_begin
from .ring import announce, ring, this_thread
from .run import Run, run_serial


class Eager:
    """A create_task call whose task may start eagerly; its serial is reserved beforehand."""

    __slots__ = (
        "begin_ns",
        "coro",
        "outer",
        "parent",
        "parent_run",
        "run",
        "serial",
        "state",
        "task",
    )

    def __init__(self, coro):
        """Begin the call."""
        thread = this_thread()
        if thread.announced != ring.generation:
            announce(thread)
        native_begin(thread)
        self.outer, self.coro = thread.eager, coro
        self.parent, self.parent_run = thread.task, thread.run
        self.task = self.state = None
        self.serial = tasks.reserve()
        self.begin_ns = monotonic_ns()
        thread.eager = self
        self.run = Run()
        self.run.enter(thread, run_serial(), self.serial)

    def end(self, task, loop):
        """Write what it did: the birth of a task, perhaps its first step."""
        end_ns, begun, run = monotonic_ns(), _has_begun(self.coro), self.run
        thread = run.thread
        if self.state is None:
            if not begun:
                return
            self.task = task
            thread.eager = self
            state = tasks.see(task, loop, thread, self.begin_ns)
            thread.eager = self.outer
            if state is not self.state:
                return  # a factory's own kind of task
        state = self.state
        if begun:
            state.born_ns = self.begin_ns
        tasks.born(state, task, loop, thread.tid, r.RUN_EAGER if begun else 0, self.coro)
        if begun:
            tasks.write_name(state, task, thread.tid)
            state.named = 0  # until 3.13 asyncio.create_task names it only now
            run.task, run.state, run.flags, run.begin_ns = task, state, r.RUN_EAGER, self.begin_ns
            run.wake = (self.begin_ns, self.parent_run, thread.tid)
            run.write_step(end_ns)

    def leave(self):
        """End the call."""
        self.run.thread.eager = self.outer
        self.run.leave()


def _may_be_eager(loop, kwargs):
    if "eager_start" in kwargs:
        return True
    own = hasattr(loop, "_task_factory")  # uvloop has it in its C struct
    return (loop._task_factory if own else loop.get_task_factory()) is not None


def _has_begun(coro):
    if getattr(coro, "cr_suspended", False):
        return True
    return getattr(coro, "cr_frame", coro) is None


def hooked_create_task(old):
    """Return the hook."""

    def create_task(self, coro, **kwargs):
        if not _may_be_eager(self, kwargs) or not (ring.recording or ring.ready()):
            return old(self, coro, **kwargs)
        try:
            eager = Eager(coro)
        except Exception:
            ring.lose(r.KIND_TASK)
            return old(self, coro, **kwargs)
        try:
            task = old(self, coro, **kwargs)
            eager.run.thread.eager = eager.outer
            if ring.recording:
                try:
                    eager.end(task, self)
                except Exception:
                    ring.lose(r.KIND_TASK)
            return task
        finally:
            eager.leave()

    return create_task
