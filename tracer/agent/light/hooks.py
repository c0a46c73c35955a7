"""The hooks on asyncio: BaseEventLoop._call_soon (who woke what), Handle._run (runs): as hooks.c.

What fails here is counted as lost; the application goes on.
"""

from time import monotonic_ns

from . import records as r
from . import tasks
from .ring import announce, publish, ring, this_thread
from .texts import callback_name, send, sent
from .work import work_told

_MOST_SCHEDULED = 1 << 16
_NOBODY = tasks.NOBODY
# all that _call_soon refers to in CPython 3.9 to 3.14; what refers to more does something else
_SOON = {"events", "Handle", "_source_traceback", "_ready", "append"}

# when callbacks that are no task's step were scheduled, by their handle's address: their own and
# their arguments' address (compared, never followed), and the wake
_scheduled = {}
_last_run = 0


def run_serial():
    """Return the serial of a run."""
    global _last_run  # noqa: PLW0603 (a counter)
    _last_run += 1
    return _last_run


def _remember(handle, callback, args, wake):
    if len(_scheduled) >= _MOST_SCHEDULED:  # handles cancelled before they ran stay here
        _scheduled.pop(next(iter(_scheduled)), None)
    _scheduled[id(handle)] = (id(callback), id(args), wake)


def _recall(handle, callback, args):
    found = _scheduled.pop(id(handle), None)
    same = found is not None and found[0] == id(callback) and found[1] == id(args)
    return found[2] if same else _NOBODY


def _note_soon(loop, handle, callback, args):
    thread = this_thread()
    wake = (monotonic_ns(), thread.run, thread.tid)
    task = tasks.task_of(callback)
    if task is None:
        _remember(handle, callback, args, wake)
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
                _remember(handle, handle._callback, handle._args, wake)
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
                _remember(self, callback, args, (monotonic_ns(), thread.run, thread.tid))
            except Exception:
                ring.lose(r.KIND_CALLBACK)
        old(self, callback, args, loop, context)

    return __init__


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


def _begin(handle, timer_type):
    run, thread = Run(), this_thread()
    if thread.announced != ring.generation:
        announce(thread)
    callback, args, loop = handle._callback, handle._args, handle._loop
    run.callback, run.flags, run.state = callback, 0, None
    tasks.see_loop(loop, thread)
    run.task = task = tasks.task_of(callback)
    if task is not None:
        run.state = state = tasks.see(task, loop, thread)
        run.wake, state.wake = state.wake, _NOBODY
        run.flags = tasks.resume_flags(task, callback, args)
        if state.named != ring.generation:
            tasks.write_name(state, task, thread.tid)
    elif isinstance(handle, timer_type):
        run.flags = r.RUN_TIMER
        run.wake = (max(int(handle._when * 1e9), 0), 0, 0)
    else:
        run.wake = _recall(handle, callback, args)
        told = work_told(callback, args)
        if told:
            run.wake = (run.wake[0], told, run.wake[2])
    if run.wake[2] and run.wake[2] != thread.tid:
        run.flags |= r.RUN_FROM_THREAD
    run.enter(thread, run_serial(), run.state.serial if run.state else 0)
    run.begin_ns = monotonic_ns()
    run.show()
    return run


def _end(run):
    end_ns = monotonic_ns()
    try:
        if ring.recording or ring.ready():
            if run.state:
                run.write_step(end_ns)
            else:
                run.write_callback(end_ns)
    finally:
        run.leave()


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
                    _end(run)
                except Exception:
                    ring.lose(r.KIND_STEP)

    return _run


def replace(kind, name, make):
    """Put a hook in the place of a method; False if that is not asyncio's own, in Python.

    Args:
        kind: the class.
        name: the method.
        make: takes the old one, returns the hook.

    """
    old = getattr(kind, name, None)
    if type(old) is not type(replace):
        return False
    hook = make(old)
    hook.__name__, hook.__qualname__, hook.__doc__ = name, old.__qualname__, old.__doc__
    hook.__module__, hook.__wrapped__ = old.__module__, old
    setattr(kind, name, hook)
    return True


def install(events, loop_type, handle_type, timer_type):
    """Put the hooks in place; RuntimeError if this is another asyncio."""
    soon = loop_type._call_soon
    if type(soon) is not type(replace) or not _SOON.issuperset(soon.__code__.co_names):
        raise RuntimeError("hooks_failed: _call_soon is not asyncio's own")
    if not replace(handle_type, "_run", lambda old: _hooked_run(old, timer_type)):
        raise RuntimeError("hooks_failed: _run is not asyncio's own")
    replace(loop_type, "_call_soon", lambda _old: _hooked_call_soon(events))
    replace(loop_type, "_add_callback_signalsafe", _hooked_signalsafe)
    replace(getattr(events, "_ThreadSafeHandle", None), "__init__", _hooked_threadsafe)
