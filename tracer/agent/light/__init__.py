"""The agent for interpreters that the one in C cannot be built for: the same records, in Python.

It costs some 8 µs more for each step of a task. What it leaves out: the interpreter's layout (the
GIL, lines inside a long step). Runs inside the traced process, on CPython 3.9 and later; the same
interface as the module in C.

Why not passive probes (the running task read from the interpreter's memory, a uprobe on
Future.set_result for who was woken)? They are cheaper: an echo kept 0.90 of its throughput on
CPython 3.11 and 0.94 on 3.13 with such a uprobe, hit twice a round trip at 1.4–2.7 µs, but 0.65 and
0.45 with this agent (tests/bench/echo_app.py, medians of three rounds on a machine that was not
quiet, no other probes). But they see neither a step's begin and end nor callbacks, so a row would
have no line, no `queue` and `resume` and no cause of lag; a task that ends wakes its awaiter past
that function. Nothing is known to them that this agent does not know.
"""

import sys

from . import eager, handshake, hooks, tasks, texts, uvloop, work
from .patch import replace
from .ring import Unwritable, ring

_UVLOOP_SENDS_AT_ONCE = (0, 23)
_HAS_EAGER = sys.version_info >= (3, 12)


def start(live_dir, slots, library_dirs, why):
    """Open the ring file; RuntimeError if that cannot be done.

    Args:
        live_dir: the folder for it.
        slots: records of 64 bytes in it.
        library_dirs: the folders of the standard library and of the bootstrap.
        why: number of the reason why this is not the agent in C, see agent_ring.why.

    """
    texts.start(library_dirs)
    try:
        ring.start(live_dir, slots, why, texts.forget_sent)
    except Unwritable as error:
        raise RuntimeError(str(error)) from None


def install(loop, handle, timer, task, _future, py_task, gather, _report):  # noqa: PLR0913, PLR0917
    """Put the hooks into asyncio's classes."""
    events = loop._call_soon.__globals__["events"]
    tasks.install(task, py_task, gather)
    hooks.install(events, loop, handle, timer)
    if _HAS_EAGER:
        replace(loop, "create_task", eager.hooked_create_task)
    replace(loop, "run_in_executor", work.hooked_run_in_executor)
    handshake.install()


def install_uvloop(loop):
    """Put the hooks into uvloop's class; RuntimeError if it sends from a queue of its own."""
    version = sys.modules["uvloop"].__version__
    if tuple(map(int, version.split(".")[:2])) < _UVLOOP_SENDS_AT_ONCE:
        raise RuntimeError(f"hooks_failed: in light mode uvloop {version} hides who sends what")
    uvloop.install(loop, eager=_HAS_EAGER)


def stop():
    """Record nothing more."""
    ring.stop()
