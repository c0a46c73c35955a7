"""The hooks on asyncio: BaseEventLoop._call_soon (who woke what), Handle._run (runs): as hooks.c.

What fails here is counted as lost; the application goes on.
"""

from time import monotonic_ns

from . import records as r
from . import tasks
from .patch import replace
from .ring import ring, this_thread
from .run import recall, remember, run_of
from .texts import FUNCTION
from .work import work_told

# all that _call_soon refers to in CPython 3.9 to 3.14; what refers to more does something else
_SOON = {"events", "Handle", "_source_traceback", "_ready", "append"}


def _note_soon(loop, handle, callback, args):
    thread = this_thread()
    wake = (monotonic_ns(), thread.run, thread.tid)
    task = tasks.task_of(callback)
    if task is None:
        remember(handle, callback, args, wake)
    else:
        tasks.see(task, loop, thread, wake[0]).wake = wake


def _hooked_call_soon(events):
    """Return BaseEventLoop._call_soon as asyncio has it, with a note before the loop can run it."""

    def _call_soon(self, callback, args, context):
        handle = events.Handle(callback, args, self, context)
        if handle._source_traceback:
            del handle._source_traceback[-1]
        if ring.recording or ring.ready():
            try:
                _note_soon(self, handle, callback, args)
            except Exception:
                ring.lose(r.KIND_STEP)
        self._ready.append(handle)
        return handle

    return _call_soon


def _hooked_signalsafe(old):
    """Return the hook on that by which a signal handler's callback is scheduled."""

    def _add_callback_signalsafe(self, handle):
        if ring.recording or ring.ready():
            try:
                thread = this_thread()
                wake = (monotonic_ns(), thread.run, thread.tid)
                remember(handle, handle._callback, handle._args, wake)
            except Exception:
                ring.lose(r.KIND_CALLBACK)
        return old(self, handle)

    return _add_callback_signalsafe


def _hooked_threadsafe(old):
    """Return the hook on _ThreadSafeHandle: from 3.14 on what call_soon_threadsafe makes."""

    def __init__(self, callback, args, loop, context=None):  # noqa: N807 (what it replaces)
        if ring.recording or ring.ready():
            try:  # it is not queued yet: the loop's thread may be quick
                thread = this_thread()
                remember(self, callback, args, (monotonic_ns(), thread.run, thread.tid))
            except Exception:
                ring.lose(r.KIND_CALLBACK)
        old(self, callback, args, loop, context)

    return __init__


def _begin(handle, timer_type):
    callback, args = handle._callback, handle._args
    run = run_of(handle._loop, callback, args)
    if run.state is None:
        if isinstance(handle, timer_type):
            run.flags = r.RUN_TIMER
            run.wake = (max(int(handle._when * 1e9), 0), 0, 0)
        else:
            wake_ns, waker, tid = recall(handle, callback, args)
            run.wake = (wake_ns, work_told(callback, args) or waker, tid)
    run.begin()
    return run


def _hooked_run(old, timer_type):
    """Return the hook on Handle._run."""

    def _run(self):
        run = None
        if ring.recording or ring.ready():
            try:
                run = _begin(self, timer_type)
            except Exception:
                ring.lose(r.KIND_STEP)
        try:
            return old(self)
        finally:
            if run is not None:
                try:
                    run.end()
                except Exception:
                    ring.lose(r.KIND_STEP)

    return _run


def install(events, loop_type, handle_type, timer_type):
    """Put the hooks in place; RuntimeError if this is another asyncio."""
    soon = loop_type._call_soon
    if type(soon) is not FUNCTION or not _SOON.issuperset(soon.__code__.co_names):
        raise RuntimeError("hooks_failed: _call_soon is not asyncio's own")
    if not replace(handle_type, "_run", lambda old: _hooked_run(old, timer_type)):
        raise RuntimeError("hooks_failed: _run is not asyncio's own")
    replace(loop_type, "_call_soon", lambda _old: _hooked_call_soon(events))
    replace(loop_type, "_add_callback_signalsafe", _hooked_signalsafe)
    replace(getattr(events, "_ThreadSafeHandle", None), "__init__", _hooked_threadsafe)
