"""The hooks on uvloop.Loop: as uvloop.c.

Its handles are C structs that call their callback themselves, so a callback is scheduled inside an
object of ours, which notes when it begins and ends.
"""

from time import monotonic_ns

from . import records as r
from . import tasks
from .eager import hooked_create_task
from .patch import put
from .ready import native_begin, native_end, replace_ready
from .ring import ring, this_thread
from .run import recall, run_of
from .work import hooked_run_in_executor, work_told

_CO_COROUTINE = 0x80
_SOON, _LATER, _KEPT = "soon", "later", "kept"
_HOOKS = {  # the way in which a method schedules, and where its callback is
    "call_soon": (_SOON, 0),
    "call_soon_threadsafe": (_SOON, 0),
    "call_later": (_LATER, 1),
    "add_reader": (_KEPT, 1),
    "add_writer": (_KEPT, 1),
    "add_signal_handler": (_KEPT, 1),
}


class Call:
    """A callback on its way through uvloop. `kept`: for any number of calls."""

    __slots__ = ("_callback", "_flags", "_kept", "_wake")

    def __init__(self, callback, kept):
        """Nobody has made it ready yet."""
        self._callback, self._kept = callback, kept
        self._flags, self._wake = 0, tasks.NOBODY

    def __call__(self, *args):
        """Call it, as a run."""
        run = None
        if ring.recording or ring.ready():
            try:
                run = self._begin(args)
            except Exception:
                ring.lose(r.KIND_STEP)
        try:
            return self._callback(*args)
        finally:
            if run is not None:
                try:
                    run.end()
                except Exception:
                    ring.lose(r.KIND_STEP)

    def __getattr__(self, name):
        """Look as the callback does."""
        return getattr(self._callback, name)

    def __repr__(self):
        """Look as the callback does."""
        return repr(self._callback)

    def _begin(self, args):
        thread = this_thread()
        run = run_of(thread.loop, self._callback, args)
        if run.state is None:
            run.flags, run.wake = self._flags, self._wake
            if self._kept and thread.handle is not None:
                run.wake = recall(thread.handle, None, None)
            told = work_told(self._callback, args)
            if told:
                run.wake = (run.wake[0], told, run.wake[2])
        if thread.native is None:
            thread.handle = None  # it is no handle of uvloop's own
        run.begin()
        return run

    def note_wake(self, loop, thread):
        """Remember who makes it ready, and when: before another thread can take it."""
        wake = (monotonic_ns(), thread.run, thread.tid)
        task = tasks.task_of(self._callback)
        if task is None:
            self._wake = wake
        else:
            tasks.see(task, loop, thread, wake[0]).wake = wake

    def note_deadline(self, handle):
        """Remember when a TimerHandle is due; what is due at once is an ordinary handle."""
        when = getattr(handle, "when", None)
        if when is not None:
            self._flags, self._wake = r.RUN_TIMER, (int(when() * 1e9), 0, 0)


def _is_coroutine_function(callback):
    """Say whether uvloop would refuse it, and must see it to do so."""
    while type(callback).__name__ == "partial":
        callback = getattr(callback, "func", None)
    return getattr(getattr(callback, "__code__", None), "co_flags", 0) & _CO_COROUTINE


def _wrapped(loop, callback, way, thread):
    native_begin(thread)
    if way is _KEPT and _is_coroutine_function(callback):
        return None
    call = Call(callback, way is _KEPT)
    if way is not _KEPT:
        call.note_wake(loop, thread)
    return call


def _hooked(old, way, at):
    """Return the hook on a method of uvloop's, with the callback inside an object of ours."""

    def schedule(self, *args, **kwargs):
        call = None
        if len(args) > at and callable(args[at]) and (ring.recording or ring.ready()):
            thread = this_thread()
            try:
                call = _wrapped(self, args[at], way, thread)
            except Exception:
                ring.lose(r.KIND_CALLBACK)
        if call is None:
            return old(self, *args, **kwargs)
        outer, thread.scheduling = thread.scheduling, True
        try:
            handle = old(self, *args[:at], call, *args[at + 1 :], **kwargs)
        finally:
            thread.scheduling = outer
        if way is _LATER:
            call.note_deadline(handle)
        return handle

    return schedule


def _hooked_run_forever(old, kind):
    def run_forever(self):
        thread = this_thread()
        replace_ready(self, kind)
        outer, thread.loop = thread.loop, self
        try:
            return old(self)
        finally:
            native_end(thread)
            thread.loop = outer

    return run_forever


def install(loop_type, *, eager):
    """Put the hooks in place; an exception if this is no uvloop that we know."""
    tasks.know_uvloop(loop_type)
    for name, (way, at) in _HOOKS.items():
        put(loop_type, name, lambda old, way=way, at=at: _hooked(old, way, at))
    put(loop_type, "run_forever", lambda old: _hooked_run_forever(old, loop_type.__base__))
    put(loop_type, "run_in_executor", hooked_run_in_executor)
    if eager:
        put(loop_type, "create_task", hooked_create_task)
