"""Tasks and loops: who they are, when they are born, how they are parked after a step: as task.c.

Reading `_exception` does not mark it as retrieved.
"""

from gc import get_referents
from sys import modules
from time import monotonic_ns

from . import records as r
from .chain import Suspension, code_of
from .ring import ring
from .texts import BUILTIN, METHOD, info_of, number_of, send

_TASK, _LOOP = "_awaitscope_task", "_awaitscope_loop"
NOBODY = (0, 0, 0)  # ns, run, tid: when something was put on the ready queue, and by whom

_task_types, _gather_type = (), None
_py_steps = ()
_step_types = set()  # TaskStepMethWrapper and, in 3.9, TaskWakeupMethWrapper
_last = {"task": 0, "loop": 0}
_uvloops = []  # uvloop's class, once its hooks are in place


def install(c_task, py_task, gather):
    """Take asyncio's classes; each may be None."""
    global _task_types, _gather_type, _py_steps  # noqa: PLW0603 (said once, by the bootstrap)
    _task_types = tuple(kind for kind in (c_task, py_task) if kind is not None)
    _gather_type = gather or ()
    _py_steps = (getattr(py_task, "_Task__step", None), getattr(py_task, "_Task__wakeup", None))


def know_uvloop(kind):
    """Take uvloop's class: its loops and those made of it are said to be libuv's."""
    _uvloops.append(kind)


class State(Suspension):
    """What is known of one task; lives in the task's __dict__ and dies with it."""

    __slots__ = (
        "born_ns",
        "held",
        "named",
        "parent",
        "run",
        "serial",
        "told",
        "tried",
        "tried_name",
        "wake",
    )

    def __init__(self, serial, born_ns):
        """Begin with a birth that is not written yet."""
        super().__init__()
        self.serial, self.born_ns = serial, born_ns
        self.parent = self.run = 0
        self.held = False  # its create_task call has not ended, and may have begun it
        # generations of the ring: that has its birth, that was tried; the same of its name
        self.told = self.tried = self.named = self.tried_name = 0
        self.wake = NOBODY


def reserve():
    """Return the serial of a task."""
    _last["task"] += 1
    return _last["task"]


def task_of(callback):
    """Return the task that a callback steps, None if it is something else."""
    kind = type(callback)
    if kind is BUILTIN:
        owner = callback.__self__
        return (
            owner if isinstance(owner, _task_types) and callback.__name__ == "task_wakeup" else None
        )
    if kind is METHOD:
        return callback.__self__ if callback.__func__ in _py_steps else None
    if kind in _step_types:
        return callback.__self__
    known = kind.__name__ in ("TaskStepMethWrapper", "TaskWakeupMethWrapper")
    if known and isinstance(getattr(callback, "__self__", None), _task_types):
        _step_types.add(kind)
        return callback.__self__
    return None


def see(task, loop, thread, ts_ns=0):
    """Return the state of a task; its first sight is its birth, at ts_ns or (0) now."""
    state = getattr(task, _TASK, None)
    if type(state) is State:
        again = state.told != ring.generation and not state.held
        if again and (state.tried != ring.generation or ring.has_room()):
            born(state, task, loop, thread.tid, 0)
        return state
    eager, coro = thread.eager, _coro_of(task)
    if eager and not eager.state and (eager.task is task or eager.coro is coro):
        state = eager.state = State(eager.serial, ts_ns or monotonic_ns())
        state.parent, state.run, state.held = eager.parent, eager.parent_run, True
    else:
        state = State(reserve(), ts_ns or monotonic_ns())
        state.parent, state.run = thread.task, thread.run
    object.__setattr__(task, _TASK, state)
    if not state.held:
        born(state, task, loop, thread.tid, 0)
    return state


def _coro_of(task):
    """Return a task's coroutine; 3.12's get_coro crashes on one that ended in its eager start."""
    return None if task.done() else task.get_coro()


def born(state, task, loop, tid, flags, coro=None):  # noqa: PLR0913, PLR0917 (as task.c)
    """Write the birth of a task; one that is over has no coroutine any more."""
    coro = coro or _coro_of(task)
    state.held, state.tried = False, ring.generation
    name, defined = _describe(coro) if coro is not None else (0, 0)
    record = r.TASK.pack(
        state.born_ns,
        tid,
        0,
        r.KIND_TASK,
        flags,
        state.serial,
        state.parent,
        _loop_state(loop)[0] if loop is not None else 0,
        send(name),
        send(defined),
        state.run,
        id(task),
    )
    if ring.write(r.KIND_TASK, record):
        state.told = ring.generation


def _describe(coro):
    """Return the numbers of a coroutine's name and of the place of its definition."""
    qualname = getattr(coro, "__qualname__", None)
    code = code_of(coro)
    key = code if code is not None else qualname
    defined = info_of(key).defined if code is not None or type(qualname) is str else 0
    return number_of(qualname if type(qualname) is str else "?"), defined


def write_name(state, task, tid):
    """Write the name of a task before its first step."""
    if state.tried_name == ring.generation and not ring.has_room():
        return
    state.tried_name = ring.generation
    text = task.get_name()
    if not isinstance(text, str):
        return
    data = text.encode("utf-8", "replace")
    cut = data[:40]
    while len(data) > len(cut) and cut and data[len(cut)] & 0xC0 == 0x80:
        cut = cut[:-1]  # cut between characters
    record = r.TASK_NAME.pack(
        monotonic_ns(), tid, min(len(data), 0xFFFF), r.KIND_TASK_NAME, 0, state.serial, 0, cut
    )
    if ring.write(r.KIND_TASK_NAME, record):
        state.named = ring.generation


def resume_flags(task, callback, args):
    """Return the RUN_* flags that can be known before a step: what is thrown into it and why."""
    flags = r.RUN_THROWN | r.RUN_CANCEL_REQUEST if task._must_cancel else 0
    if args:  # a wakeup: its argument is the future
        future = args[0]
        state = getattr(future, "_state", None)
        if state == "CANCELLED":  # Task.cancel() cancels the future it waits for
            flags |= r.RUN_THROWN | r.RUN_CANCEL_REQUEST
        elif state == "FINISHED" and getattr(future, "_exception", None) is not None:
            flags |= r.RUN_THROWN | r.RUN_FUTURE_FAILED
    elif type(callback) in _step_types:
        # the exception that asyncio itself throws in: it shows it to the garbage collector only
        held = get_referents(callback)
        if len(held) > 1 and any(isinstance(one, BaseException) for one in held):
            flags |= r.RUN_THROWN
    return flags


def park(state, task):
    """Return how a task is parked after a step, the task it awaits, and RUN_RESUMED_SAME or 0."""
    how = task._state
    if how != "PENDING":
        state.clear()
        if how == "CANCELLED":
            return r.HOW_CANCELLED, 0, 0
        return (r.HOW_DONE if task._exception is None else r.HOW_FAILED), 0, 0
    waiter, awaited = task._fut_waiter, 0
    if waiter is None:
        how = r.HOW_YIELD
    elif isinstance(waiter, _task_types):
        how = r.HOW_TASK
        other = getattr(waiter, _TASK, None)
        awaited = other.serial if type(other) is State else 0
    else:
        how = r.HOW_GATHER if isinstance(waiter, _gather_type) else r.HOW_FUTURE
    coro = task.get_coro()
    same = coro is not None and state.update(coro)
    return how, awaited, r.RUN_RESUMED_SAME if same else 0


def _loop_state(loop):
    """Return [serial, generation of the ring that has its record, that was tried] of a loop."""
    state = getattr(loop, _LOOP, None)
    if state is None:
        _last["loop"] += 1
        state = [_last["loop"], 0, 0]
        setattr(loop, _LOOP, state)
    return state


def see_loop(loop, thread):
    """Describe the loop whose callback this thread is about to run, at its first one."""
    state = getattr(loop, _LOOP, None) or _loop_state(loop)
    if state[1] == ring.generation or (state[2] == ring.generation and not ring.has_room()):
        return
    state[2] = ring.generation
    kind = type(loop)
    record = r.LOOP.pack(
        monotonic_ns(),
        thread.tid,
        0,
        r.KIND_LOOP,
        r.LOOP_UVLOOP if isinstance(loop, tuple(_uvloops)) else 0,
        state[0],
        send(number_of(f"{kind.__module__}.{kind.__qualname__}")),
        _fileno(getattr(loop, "_selector", None)),
        *_self_pipe(loop),
        0,
    )
    if ring.write(r.KIND_LOOP, record):
        state[1] = ring.generation


def _self_pipe(loop):
    """Return the descriptors by which threads and signals come; uvloop's are in its C struct."""
    if hasattr(loop, "_ssock"):
        return _fileno(loop._ssock), _fileno(loop._csock)
    kind = getattr(modules.get("socket"), "socket", ())
    pair = [one for one in get_referents(loop) if isinstance(one, kind)][:2]
    return (_fileno(pair[0]), _fileno(pair[1])) if len(pair) > 1 else (-1, -1)


def _fileno(file):
    try:
        return file.fileno()
    except Exception:
        return -1
