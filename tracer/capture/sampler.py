"""Looks into a run that takes long, again and again, while it lasts: what it is doing.

A thread of the tracer. It reads the agents' shared memory, where each thread says in which run it
is; nothing happens to a process whose runs are short. A sample lies in its run: the same run was
open before and after the reading, and that is said on the clock of all records.
"""

from __future__ import annotations

import json
import os
import random
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from tracer.capture.frames import Interpreter, is_library, plain
from tracer.capture.watch import Key, Look
from tracer.system.syscalls import POLLS, WAITS

if TYPE_CHECKING:
    from collections.abc import Callable

    from tracer.capture.watch import Watch
    from tracer.store.ringfile import RingFile

_PERIOD_S = 0.02
_OVERDUE_NS = 20_000_000
_LOOKS = 4  # at a run that is just as long as --watch-blocking says
_FIRST_PIDNS = 0xEFFFFFFC  # PROC_PID_INIT_INO, include/linux/proc_ns.h


@dataclass
class _Watched:
    ring: RingFile
    tgid: int
    interpreter: Interpreter | None = None
    failed: bool = False
    head: int = 0  # records that the agent had written at the last look
    busy: set[int] = field(default_factory=set)  # places that were busy outside runs then
    serials: dict[int, int] = field(default_factory=dict)  # by place: the run seen there last
    long: dict[int, int] = field(default_factory=dict)  # by place: iteration that has a long run


class Sampler:
    """Samples the long runs of all agents into a file of JSON lines."""

    def __init__(
        self,
        fd: int,
        watch: Watch | None = None,
        polled_ns: Callable[[int, int], int] = lambda _tid, _tgid: 0,
    ) -> None:
        """Make one.

        Args:
            fd: where samples go.
            watch: who tells of long runs at once, None for nobody.
            polled_ns: says when the last epoll_wait of a thread of a process returned, 0 unknown.

        """
        self._fd = fd
        self._watch = watch
        self._polled_ns = polled_ns
        over_ns = watch.over_ns if watch else _LOOKS * _OVERDUE_NS
        self._overdue_ns = min(_OVERDUE_NS, over_ns // 2)
        self._period_s = min(_PERIOD_S, over_ns / 1e9 / _LOOKS)
        self._watched: list[_Watched] = []
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)
        # the kernel's process ids are those of the first namespace; elsewhere they are strangers'
        self._at_home = Path("/proc/self/ns/pid").stat().st_ino == _FIRST_PIDNS

    def watch(self, ring: RingFile, tgid: int) -> None:
        """Look into the threads of an agent.

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
        if self._watch:
            self._watch.end()

    def _run(self) -> None:
        # never in step with the program's own timers, such as the 5 ms of who waits for the GIL
        while not self._over.wait(self._period_s * random.uniform(0.8, 1.2)):
            with self._lock:
                watched = list(self._watched)
            still_open = [
                self._look(one, place)
                for one in watched
                for place in overdue(one.ring, time.monotonic_ns(), self._overdue_ns)
            ]
            for one in watched:
                for place in self._stuck(one):
                    self._sample_stuck(one, place)
            still_open += [key for one in watched for key in self._crowded(one)]
            if self._watch:
                self._watch.settle(still_open)

    def _look(self, one: _Watched, place: int) -> Key:
        """Look into a run; return which one it is."""
        run = one.ring.open_at(place)
        now_ns = time.monotonic_ns()
        sample = self._sample(one, place)
        key = Key(one.ring.agent, run.tid, run.serial, run.begin_ns)
        if self._watch:
            look = _look_at(one, run.tid, now_ns)
            if one.ring.open_at(place).serial == run.serial:
                self._watch.saw(key, now_ns, look, sample)
        return key

    def _crowded(self, one: _Watched) -> list[Key]:
        """Look at loops that have not polled for long, and not because of one run; return which."""
        found = []
        for place in one.ring.places():
            run, now_ns = one.ring.open_at(place), time.monotonic_ns()
            before = one.serials.get(place, run.serial)
            one.serials[place] = run.serial
            began_ns = self._polled_ns(run.tid, one.tgid)
            run_ns = now_ns - run.begin_ns if run.is_open else 0
            if self._watch and run_ns > self._watch.over_ns:
                one.long[place] = began_ns
            late = began_ns and now_ns - began_ns > self._overdue_ns
            if not late or one.long.get(place) == began_ns:
                continue
            # a run that is overdue itself, or none, is sampled by others
            sample = self._sample(one, place, keep=0 < run_ns <= self._overdue_ns)
            # else its loop may not run any more
            if self._watch and (sample or run.is_open or run.serial != before):
                look = _look_at(one, run.tid, now_ns)
                found.append(Key(one.ring.agent, run.tid, 0, began_ns))
                self._watch.saw(found[-1], now_ns, look, sample)
        return found

    def _stuck(self, one: _Watched) -> list[int]:
        """Return the places of loops that no run of ours holds: uvloop reads in C, for one.

        Nothing was written since the last look, and the thread did not wait as loops do, twice.
        """
        before, head = one.busy, one.ring.head
        one.busy = {
            place
            for place in one.ring.between_runs()
            if self._is_busy(one.tgid, one.ring.open_at(place).tid)
        }
        quiet = head == one.head
        one.head = head
        return sorted(before & one.busy) if quiet else []

    def _sample_stuck(self, one: _Watched, place: int) -> None:
        """Sample a thread that is stuck, unless it waits by now: then it was seen on its way."""
        sample = self._sample(one, place, keep=False)
        if sample and self._is_busy(one.tgid, one.ring.open_at(place).tid):
            self._write(sample)

    def _is_busy(self, tgid: int, tid: int) -> bool:
        """Say whether a thread does something else than wait in its loop's call.

        poll and select are that of a loop that never was in epoll_wait; else they are a block.
        """
        try:
            number = Path(f"/proc/{tgid}/task/{tid}/syscall").read_text().split()[0]
        except (OSError, IndexError):
            return False
        if not number.isdigit():  # running
            return True
        return self._polled_ns(tid, tgid) > 0 if int(number) in POLLS else int(number) not in WAITS

    def _sample(self, one: _Watched, place: int, *, keep: bool = True) -> dict[str, Any] | None:
        """Sample a thread, and write it down if it is to be kept."""
        interpreter = self._interpreter(one)
        sample = sample_of(one.ring, interpreter, place) if interpreter else None
        if sample and keep:
            self._write(sample)
        return sample

    def _write(self, sample: dict[str, Any]) -> None:
        with suppress(OSError):  # the disk is full: the session finds out by itself
            os.write(self._fd, json.dumps(sample).encode() + b"\n")

    def _interpreter(self, one: _Watched) -> Interpreter | None:
        """Return who reads a process's frames, None if they cannot be read."""
        if one.interpreter is None and not one.failed and one.ring.layout["code_type"]:
            try:
                one.interpreter = Interpreter(one.ring, one.tgid)
            except OSError:  # it is gone, or the kernel refuses
                one.failed = True
        return one.interpreter


def _look_at(one: _Watched, tid: int, now_ns: int) -> Look | None:
    layout = one.ring.layout
    gil = range(layout["gil"], layout["gil"] + layout["gil_bytes"])
    return Look.at(now_ns, Path(f"/proc/{one.tgid}/task/{tid}"), gil)


def overdue(ring: RingFile, now_ns: int, over_ns: int = _OVERDUE_NS) -> list[int]:
    """Return the places of the runs that have been open for so long."""
    began, is_open = ring.open_since()
    return [int(i) for i in np.flatnonzero(is_open & (now_ns - began > over_ns))]


def sample_of(ring: RingFile, interpreter: Interpreter, place: int) -> dict[str, Any] | None:
    """Return what the run at a place is doing; None if it ended meanwhile or cannot be read.

    Where no run is open: what the loop's thread is doing outside of runs, while the loop runs.

    `user` is the innermost frame outside the libraries, the outermost if all are in one.
    """
    run = ring.open_at(place)
    now_ns = time.monotonic_ns()
    frames, whole = interpreter.chain(run.tstate, run.base)
    holder = interpreter.holder()
    other = None
    if holder and holder != run.tstate:
        theirs, _whole = interpreter.chain(holder)
        other = {"tid": interpreter.tid(holder), **(plain(theirs[0]) if theirs else {})}
    collecting = holder == run.tstate and interpreter.collecting()
    after = ring.open_at(place)
    if not frames or (after.serial, after.is_open) != (run.serial, run.is_open):
        return None
    if not run.is_open and not whole:  # its loop does not run any more
        return None
    own = [frame for frame in frames if not is_library(frame.file, ring.library)]
    return {
        "ts_ns": now_ns,
        "agent": f"{ring.agent:016x}",
        "tid": run.tid,
        "run": run.serial if run.is_open else 0,
        "frames": [plain(frame) for frame in frames],
        "user": plain(own[0] if own else frames[-1]),
        "calls": frames[0].calls,
        "collecting": collecting,
        "holder": other,
    }
