"""The ring file, and what a thread tells the kernel: as ring.c.

One writer at a time, one reader in another process. A full ring counts what it loses and never
blocks. A thread that finds another one writing (or a signal handler that finds its own thread
doing so) leaves its records to that one.
"""

import ctypes
import os
import sys
from _collections import deque
from _thread import _local, allocate_lock, get_native_id
from struct import Struct
from time import monotonic_ns

from . import records as r

_HEADER_BYTES, _RECORD_BYTES = 4096, 64
_MIN_SLOTS, _MAX_SLOTS = 64, 1 << 22
_THREAD_SLOTS = 4096
_MOST_WAITING = 1000
_HEAD_WORD = r.HEAD_AT_HEAD // 8
_copy = Struct("64s").pack_into
_READ_WRITE, _SHARED, _PRIVATE_ANONYMOUS = 3, 1, 0x22  # PROT_*, MAP_* of x86-64
_FAILED = ctypes.c_void_p(-1).value
_WRITABLE = 0x200  # PyBUF_WRITE

_libc = ctypes.PyDLL(None, use_errno=True)  # keeps the GIL: nothing here takes long
_mmap, _prctl = _libc.mmap, _libc.prctl
_mmap.restype = ctypes.c_void_p
_mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
_view = ctypes.pythonapi.PyMemoryView_FromMemory
_view.restype = ctypes.py_object
_view.argtypes = [ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int]


def _mapped(size, flags, fd):
    """Map memory; return its address and a view of it.

    The module mmap would keep a descriptor of its own open in the application.
    """
    address = _mmap(None, size, _READ_WRITE, flags, fd, 0)
    if address == _FAILED:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return address, _view(address, size, _WRITABLE)


class Unwritable(Exception):
    """There is no ring: `code: detail`."""


class Ring:
    """The ring of this process. `generation` grows with each: what the old one had is said again.

    `recording` is the only thing to look at before a record is made; `ready()` where it is not set.
    """

    def __init__(self):
        """Make one that is not open."""
        self.recording = self._reopen = False
        self.generation = 1
        self.agent = 0
        self._lock = allocate_lock()
        self._waiting = deque()
        self._gap = None  # first_ns, last_ns, count, kinds

    def start(self, live, slots, why, renewed):
        """Open the ring file; Unwritable if that cannot be done.

        Args:
            live: the folder for it.
            slots: records in it, at least.
            why: number of the reason why this is not the agent in C, see agent_ring.why.
            renewed: called when a forked child is to begin another.

        """
        self._live, self._why, self._renewed = live, why, renewed
        self._slots = _MIN_SLOTS
        while self._slots < min(slots, _MAX_SLOTS):
            self._slots *= 2
        self._mask, self._near = self._slots - 1, self._slots // 2
        try:
            self._open()
        except OSError as error:
            code = "no_space" if error.errno in (28, 12) else "live_unwritable"
            raise Unwritable(f"{code}: {error.strerror}") from None
        os.register_at_fork(after_in_child=self._after_fork_in_child)

    def stop(self):
        """Record nothing more."""
        if self.recording:
            self._area[r.OPEN_AT : r.OPEN_AT + r.OPEN_RUNS * _RECORD_BYTES] = bytes(
                r.OPEN_RUNS * _RECORD_BYTES
            )
        self.recording = self._reopen = False

    def ready(self):
        """Say whether records can be written; a forked child opens its own ring now."""
        if self._reopen:
            self._reopen = False
            try:
                self._open()
            except OSError as error:
                self._orphaned(error.errno)
        return self.recording

    def _open(self):
        size = _HEADER_BYTES + self._slots * _RECORD_BYTES
        agent = int.from_bytes(os.urandom(8), "little") or 1
        path = f"{self._live}/{agent:016x}.ring"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(path, flags, 0o600)
        try:
            # blocks are taken now: a full disk must not become a SIGBUS in the application later
            os.posix_fallocate(fd, 0, size)
            _address, area = _mapped(size, _SHARED, fd)
        except OSError:
            os.unlink(path)
            raise
        finally:
            os.close(fd)
        self._area, self._words = area, area.cast("Q")
        self._head = self._tail = 0
        self._gap = None
        self.agent = agent
        python = f"{sys.version.split()[0]} cpython".encode()[:63]
        area[: r.HEAD.size] = r.HEAD.pack(
            r.SCHEMA,
            os.getpid(),
            agent,
            monotonic_ns(),
            self._slots,
            0,
            0,
            sys.hexversion,
            r.MODE_LIGHT,
        )
        area[r.HEAD_AT_PYTHON : r.HEAD_AT_PYTHON + len(python)] = python
        area[r.HEAD_AT_WHY] = self._why
        self._words[0] = r.MAGIC
        self.recording = True

    def _after_fork_in_child(self):
        """Never write into the parent's ring."""
        if not self.recording:
            return
        self.recording, self._reopen = False, True
        self.generation += 1
        self._renewed()
        self._lock = allocate_lock()
        self._waiting.clear()
        thread = _here.thread  # what it was forked in goes on in the parent only
        thread.run = thread.task = 0
        thread.open = thread.handle = thread.native = None

    def _orphaned(self, number):
        """Say in the parent's ring that this child has none: nobody else would know why."""
        numbers = self._area.cast("i")
        at = numbers[r.HEAD_AT_ORPHANS // 4]
        numbers[r.HEAD_AT_ORPHANS // 4] = at + 1
        if at < r.ORPHANS:
            numbers[r.HEAD_AT_ORPHAN_ERRNO // 4 + at] = number
            numbers[r.HEAD_AT_ORPHAN_PID // 4 + at] = os.getpid()

    def _room(self):
        if self._head - self._tail >= self._near:
            # a broken reader: believe nothing of it
            self._tail = min(self._words[r.HEAD_AT_TAIL // 8], self._head)
        return self._slots - (self._head - self._tail)

    def has_room(self):
        """Say whether a record would fit, for what was lost once: no second loss is counted."""
        return self.recording and self._room() >= (2 if self._gap else 1)

    def lose(self, kind, count=1):
        """Count records that could not be written, or made."""
        now = monotonic_ns()
        self._words[r.HEAD_AT_LOST // 8 + kind - r.KIND_LOOP] += count
        first, _last, before, kinds = self._gap or (now, now, 0, 0)
        self._gap = (first, now, before + count, kinds | 1 << (kind - r.KIND_LOOP))

    def write(self, kind, data):
        """Write records of one kind, all or none; False if there was no room."""
        if not self._lock.acquire(False):
            if len(self._waiting) < _MOST_WAITING:
                self._waiting.append((kind, data))
            else:
                self.lose(kind, len(data) // _RECORD_BYTES)
            return True
        try:
            if (
                len(data) == _RECORD_BYTES
                and self._head - self._tail < self._near
                and not self._gap
            ):
                written = self._put(data)
            else:
                written = self._write(kind, data)
        finally:
            self._lock.release()
        if self._waiting:
            self._write_waiting()
        return written

    def _write_waiting(self):
        while self._waiting and self._lock.acquire(False):
            try:
                if self._waiting:
                    self._write(*self._waiting.popleft())
            finally:
                self._lock.release()

    def _write(self, kind, data):
        count = len(data) // _RECORD_BYTES
        if self._room() < count + (1 if self._gap else 0):
            self.lose(kind, count)
            return False
        if self._gap:
            first, last, lost, kinds = self._gap
            self._gap = None
            self._put(r.AGENT_GAP.pack(first, 0, 0, r.KIND_AGENT_GAP, 0, last, lost, kinds))
        if count == 1:
            self._put(data)
        else:
            for at in range(0, len(data), _RECORD_BYTES):
                self._put(data[at : at + _RECORD_BYTES])
        return True

    def _put(self, data):
        head = self._head
        _copy(self._area, _HEADER_BYTES + (head & self._mask) * _RECORD_BYTES, data)
        self._head = self._words[_HEAD_WORD] = head + 1  # after the record: x86-64 keeps the order
        return True

    def show(self, thread, kind, form, *values):
        """Say in which run a thread is: if the process ends in it, nothing else ever will.

        Args:
            thread: the thread.
            kind: 0 for none.
            form: the format of the record.
            values: the record's, with the kind 0.

        """
        if thread.index < r.OPEN_RUNS:
            at = r.OPEN_AT + thread.index * _RECORD_BYTES
            self._area[at + r.KIND_AT] = 0
            if kind:
                form.pack_into(self._area, at, *values)
                self._area[at + r.KIND_AT] = kind


class Thread:
    """What is known of a thread; `index` is its place among those that the kernel reads."""

    def __init__(self):
        """Describe the calling thread."""
        self.tid = self.generation = self.announced = 0
        self.run = self.task = 0  # serials of what is current
        self.index = _THREAD_SLOTS  # none
        self.eager = None  # innermost create_task call that may start its task eagerly
        self.open = None  # innermost run that Handle._run began
        self.giving = self.working = None  # what is given to an executor, what of that runs here
        # of uvloop: the loop that runs; the handle taken last, unless its callback is ours; its run
        self.loop = self.handle = self.native = None
        self.taken_ns = 0
        self.scheduling = False  # one of our methods is putting a handle on the ready queue

    def __del__(self):
        """Give the place back at the thread's end."""
        try:
            if self.index < _THREAD_SLOTS:
                if ring.recording:
                    ring.show(self, 0, None)
                _slots[self.index * 8] = 0
                _free.append(self.index)
        except TypeError:
            return  # the interpreter ends: what is used here is None already


class _Here(_local):
    def __init__(self):
        self.thread = Thread()


ring = Ring()
_here = _Here()
# a cache line for each thread, of this process alone
_slots_at, _bytes = _mapped(_THREAD_SLOTS * 64, _PRIVATE_ANONYMOUS, -1)
_slots = _bytes.cast("Q")
_free = list(range(_THREAD_SLOTS - 1, -1, -1))


def this_thread():
    """Return what is known of the calling thread."""
    thread = _here.thread
    if thread.generation != ring.generation:
        thread.generation = ring.generation
        thread.tid = get_native_id()
    return thread


def publish(thread, run, task):
    """Say what is current in a thread: the kernel reads the task's serial there."""
    thread.run, thread.task = run, task
    if thread.index < _THREAD_SLOTS:
        _slots[thread.index * 8] = task


def announce(thread):
    """Tell the kernel, once, where this thread publishes its running task."""
    thread.announced = ring.generation
    if thread.index == _THREAD_SLOTS:
        if not _free:
            return
        thread.index = _free.pop()
    # written before it is announced: the kernel reads it where a page fault is not allowed
    _slots[thread.index * 8] = 0
    _prctl(r.PRCTL, _slots_at + thread.index * 64, ring.agent, thread.tid, 0)
