"""Work that a loop gives to an executor: as work.c, but for who ran it and when.

A wrapper in Python would be a frame in the function's tracebacks: it is given away as it is.
"""

from time import monotonic_ns

from . import records as r
from .ring import ring, this_thread
from .texts import FUNCTION, callback_name, send

_WORK = "_awaitscope_work"


def work_told(callback, args):
    """Return the serial of the work whose end a callback brings into the loop, 0 for none.

    That is asyncio.futures._chain_future's _set_state(future, concurrent future).
    """
    if len(args) != 2 or type(callback) is not FUNCTION:
        return 0
    if callback.__qualname__ != "_chain_future.<locals>._set_state":
        return 0
    return getattr(args[0], _WORK, 0)


def _note(future, func, given_ns, serial):
    thread = this_thread()
    setattr(future, _WORK, serial)
    name = send(callback_name(func))
    record = r.WORK.pack(
        given_ns, thread.tid, 0, r.KIND_WORK, 0, 0, given_ns,
        serial, thread.run, name, thread.tid, thread.task, 0,
    )  # fmt: skip
    ring.write(r.KIND_WORK, record)


def hooked_run_in_executor(old, run_serial):
    """Return the hook on BaseEventLoop.run_in_executor."""

    def run_in_executor(self, executor, func, *args):
        given_ns = monotonic_ns()
        future = old(self, executor, func, *args)
        if ring.recording or ring.ready():
            try:
                _note(future, func, given_ns, run_serial())
            except Exception:
                ring.lose(r.KIND_WORK)
        return future

    return run_in_executor
