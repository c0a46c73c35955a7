"""Looks into a run that takes long, again and again, while it lasts: what it is doing.

A thread of the tracer. It reads the agents' shared memory, where each thread says in which run it
is; nothing happens to a process whose runs are short. A sample lies in its run: the same run was
open before and after the reading, and that is said on the clock of all records.
"""

from __future__ import annotations

import json
import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from tracer.capture.frames import Interpreter, plain

if TYPE_CHECKING:
    from tracer.store.ringfile import RingFile

PERIOD_S = 0.02
OVERDUE_NS = 20_000_000
_FIRST_PIDNS = 0xEFFFFFFC  # PROC_PID_INIT_INO, include/linux/proc_ns.h


@dataclass
class _Watched:
    ring: RingFile
    tgid: int
    interpreter: Interpreter | None = None
    failed: bool = False


class Sampler:
    """Samples the long runs of all agents into a file of JSON lines."""

    def __init__(self, fd: int) -> None:
        """Make one; `fd` is where samples go."""
        self._fd = fd
        self._watched: list[_Watched] = []
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)
        # the kernel's process ids are those of the first namespace; elsewhere they are strangers'
        self._at_home = Path("/proc/self/ns/pid").stat().st_ino == _FIRST_PIDNS

    def watch(self, ring: RingFile, tgid: int) -> None:
        """Watch the threads of an agent.

        Args:
            ring: the agent's.
            tgid: its process in the root pid namespace.

        """
        if self._at_home:
            with self._lock:
                self._watched.append(_Watched(ring, tgid))

    def __enter__(self) -> Self:
        """Begin to look."""
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Stop; afterwards the rings may be closed."""
        self._over.set()
        self._thread.join()
        for one in self._watched:
            if one.interpreter:
                one.interpreter.close()
        os.close(self._fd)

    def _run(self) -> None:
        while not self._over.wait(PERIOD_S):
            with self._lock:
                watched = list(self._watched)
            for one in watched:
                for place in overdue(one.ring, time.monotonic_ns()):
                    self._look(one, place)

    def _look(self, one: _Watched, place: int) -> None:
        if one.interpreter is None and not one.failed:
            try:
                one.interpreter = Interpreter(one.ring, one.tgid)
            except OSError:  # it is gone, or the kernel refuses
                one.failed = True
        if one.interpreter is None:
            return
        sample = _sample(one.ring, one.interpreter, place)
        if sample:
            with suppress(OSError):  # the disk is full: the session finds out by itself
                os.write(self._fd, json.dumps(sample).encode() + b"\n")


def overdue(ring: RingFile, now_ns: int) -> list[int]:
    """Return the places of the runs that are open for OVERDUE_NS, if they can be looked into."""
    if not ring.layout["code_type"]:
        return []
    began, is_open = ring.open_since()
    return [int(i) for i in np.flatnonzero(is_open & (now_ns - began > OVERDUE_NS))]


def _sample(ring: RingFile, interpreter: Interpreter, place: int) -> dict[str, Any] | None:
    """Return what the run at a place is doing; None if it ended meanwhile or cannot be read."""
    run, tid, tstate, base = ring.open_at(place)
    now_ns = time.monotonic_ns()
    frames = interpreter.chain(tstate, base)
    holder = interpreter.holder()
    other = None
    if holder and holder != tstate:
        theirs = interpreter.chain(holder)
        other = {"tid": interpreter.tid(holder), **(plain(theirs[0]) if theirs else {})}
    collecting = holder == tstate and interpreter.collecting()
    if not frames or ring.open_at(place)[0] != run:
        return None
    return {
        "ts_ns": now_ns,
        "agent": f"{ring.agent:016x}",
        "tid": tid,
        "run": run,
        "frames": [plain(frame) for frame in frames],
        "collecting": collecting,
        "holder": other,
    }
