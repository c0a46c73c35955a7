"""What uvloop schedules for itself (a connection was made, was lost): as ready.c.

Such a handle passes nothing of Python's but the loop's ready queue, a deque: ours in its place
tells when it is put there and when it is taken.
"""

import ctypes
from _collections import deque
from gc import get_referents
from time import monotonic_ns

from . import records as r
from .ring import ring, this_thread
from .run import recall, remember, run_of

_MADE, _TLS_MADE = "UVTransport._call_connection_made", "SSLProtocol.connection_made"
_WORD = ctypes.sizeof(ctypes.c_void_p)


def native_begin(thread):
    """Begin the run of the handle that was taken last: what happens now happens in it.

    Unless it happens in a callback, which has a run of its own.
    """
    if thread.run or thread.handle is None or thread.native is not None:
        return
    try:
        run = run_of(thread.loop, _name(thread.handle), ())
        run.wake = recall(thread.handle, None, None)
        run.begin()
        run.begin_ns = thread.taken_ns
        thread.native = run
    except Exception:
        ring.lose(r.KIND_CALLBACK)


def native_end(thread):
    """End the run of the handle that was taken last."""
    thread.handle = None
    run, thread.native = thread.native, None
    if run is not None:
        try:
            run.end()
        except Exception:
            ring.lose(r.KIND_CALLBACK)


def _name(handle):
    """Return what the handle's repr calls it, "<Handle UVTransport._call_connection_made>".

    Where that begins TLS, it is called as asyncio's.
    """
    words = repr(handle).strip("<>").split(" ")
    name = words[1] if len(words) > 1 else type(handle).__name__
    return _TLS_MADE if name == _MADE and _begins_tls(handle) else name


def _begins_tls(handle):
    for one in get_referents(handle):
        if type(one).__module__ == "uvloop.loop" and hasattr(one, "get_protocol"):
            return type(one.get_protocol()).__name__ == "SSLProtocol"
    return False


class _Ready(deque):
    """A loop's ready queue."""

    def popleft(self):
        """Take the next handle: the last one has ended."""
        thread = this_thread()
        if thread.handle is not None:
            native_end(thread)
        handle = _popleft(self)
        if thread.loop is not None and (ring.recording or ring.ready()):
            thread.handle, thread.taken_ns = handle, monotonic_ns()
        return handle

    def append(self, handle):
        """Put a handle at the end, perhaps one of uvloop's own."""
        thread = this_thread()
        if not thread.scheduling and (ring.recording or ring.ready()):
            native_begin(thread)
            remember(handle, None, None, (monotonic_ns(), thread.run, thread.tid))
        _append(self, handle)

    def __len__(self):
        """Return the length: asked for after the last handle of a loop iteration."""
        thread = this_thread()
        if thread.handle is not None:
            native_end(thread)
        return _length(self)


_popleft, _append, _length = deque.popleft, deque.append, deque.__len__


def replace_ready(loop, kind):
    """Put our deque in the place of the loop's own, the only one in the C struct of its type."""
    queues = {id(one): one for one in get_referents(loop) if type(one) is deque}
    words = (ctypes.c_size_t * (kind.__basicsize__ // _WORD)).from_address(id(loop))
    for at, word in enumerate(words):
        if at > 1 and word in queues:
            ours = _Ready(queues[word])
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(ours))  # the struct's reference
            words[at] = id(ours)
            ctypes.pythonapi.Py_DecRef(ctypes.py_object(queues[word]))
            return
