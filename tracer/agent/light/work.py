"""Work that a loop gives to an executor: as work.c.

A wrapper in Python would be a frame in the function's tracebacks, so it is given away as it is and
the pool's own item of work tells who ran it and when: from the item's run to its future's result.
"""

import sys
from time import monotonic_ns

from . import records as r
from .patch import replace
from .ready import native_begin
from .ring import ring, this_thread
from .run import run_serial
from .texts import FUNCTION, callback_name, send

_WORK = "_awaitscope_work"
_hooked_pools = set()


class _Work:
    """A function on its way to a pool of threads, or to another executor."""

    __slots__ = ("begin_ns", "future", "given_ns", "name", "run", "seen", "serial", "task", "tid")

    def __init__(self, func, thread):
        """Give it away now."""
        self.given_ns, self.serial, self.name = monotonic_ns(), run_serial(), callback_name(func)
        self.run, self.task, self.tid = thread.run, thread.task, thread.tid
        self.seen, self.future, self.begin_ns = False, None, 0

    def write(self, tid, begin_ns, end_ns):
        """Write what became of it; end_ns is 0 where that cannot be seen."""
        record = r.WORK.pack(
            begin_ns, tid, 0, r.KIND_WORK, 0, end_ns, self.given_ns,
            self.serial, self.run, send(self.name), self.tid, self.task, 0,
        )  # fmt: skip
        ring.write(r.KIND_WORK, record)


def work_told(callback, args):
    """Return the serial of the work whose end a callback brings into the loop, 0 for none.

    That is asyncio.futures._chain_future's _set_state(future, concurrent future).
    """
    if len(args) != 2 or type(callback) is not FUNCTION:
        return 0
    if callback.__qualname__ != "_chain_future.<locals>._set_state":
        return 0
    return getattr(args[0], _WORK, 0)


def _hooked_init(old):
    """Return the hook on the pool's _WorkItem: made where the work is given away."""

    def __init__(self, future, *args, **kwargs):  # noqa: N807 (what it replaces)
        old(self, future, *args, **kwargs)
        work = this_thread().giving
        if work is not None and not work.seen:
            work.seen, work.future = True, future
            self._awaitscope_work = work

    return __init__


def _hooked_run(old):
    """Return the hook on _WorkItem.run, which a worker calls."""

    def run(self, *args):
        work = getattr(self, _WORK, None)
        if work is None:
            return old(self, *args)
        thread = this_thread()
        outer, thread.working = thread.working, work
        work.begin_ns = monotonic_ns()
        try:
            return old(self, *args)
        finally:
            thread.working = outer

    return run


def _hooked_set(old):
    """Return the hook on a future's set_result or set_exception: the function has returned."""

    def set_outcome(self, outcome):
        work = this_thread().working
        if work is not None and work.future is self:
            end_ns, work.future = monotonic_ns(), None
            if ring.recording or ring.ready():
                try:
                    work.write(this_thread().tid, work.begin_ns, end_ns)
                except Exception:
                    ring.lose(r.KIND_WORK)
        return old(self, outcome)

    return set_outcome


def _hook_pool(executor):
    """Hook the pool that will run it, unless that is done, or it is another kind of executor."""
    if executor is None:  # asyncio is about to load it, too
        import concurrent.futures.thread  # noqa: F401
    pool = sys.modules.get("concurrent.futures.thread")
    item = getattr(pool, "_WorkItem", None)
    if item is None or item in _hooked_pools:
        return
    _hooked_pools.add(item)
    future = pool._base.Future
    if replace(item, "run", _hooked_run) and replace(item, "__init__", _hooked_init):
        replace(future, "set_result", _hooked_set)
        replace(future, "set_exception", _hooked_set)


def _begin(executor, func):
    thread = this_thread()
    native_begin(thread)
    _hook_pool(executor)
    thread.giving = _Work(func, thread)
    return thread


def _end(work, thread, future):
    setattr(future, _WORK, work.serial)
    if not work.seen:
        work.write(thread.tid, work.given_ns, 0)


def hooked_run_in_executor(old):
    """Return the hook on BaseEventLoop.run_in_executor, or uvloop's."""

    def run_in_executor(self, executor, func, *args):
        thread = None
        if ring.recording or ring.ready():
            try:
                thread = _begin(executor, func)
            except Exception:
                ring.lose(r.KIND_WORK)
        if thread is None:
            return old(self, executor, func, *args)
        work = thread.giving
        try:
            future = old(self, executor, func, *args)
        finally:
            thread.giving = None
        try:
            _end(work, thread, future)
        except Exception:
            ring.lose(r.KIND_WORK)
        return future

    return run_in_executor
