"""An agent's ring file: `struct agent_ring` of record.h and its slots.

The file is shared memory while the process lives and stays readable after its death.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tracer.events.header import load as load_header

if TYPE_CHECKING:
    from pathlib import Path

SLOT = 64
_DATA = 4096
_KIND_AT = 14
_TRIES = 100


def write_all(fd: int, data: memoryview) -> None:
    """Write every byte; os.write may be short on a nearly full disk or a pipe."""
    while data:
        data = data[os.write(fd, data) :]


@dataclass(frozen=True)
class OpenRun:
    """A run that has not ended: its thread (as its process sees it), thread state, first frame."""

    serial: int
    is_open: bool
    tid: int
    begin_ns: int
    tstate: int
    base: int


class RingFile:
    """A mapped ring file."""

    def __init__(self, path: Path) -> None:
        """Map the file; ValueError if it is not (yet) a complete ring of our schema."""
        header = load_header()
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            size = os.fstat(fd).st_size
            if size < _DATA + SLOT:
                raise ValueError("not a ring yet")
            self._map = mmap.mmap(fd, size)
        finally:
            os.close(fd)
        self._header = np.frombuffer(self._map, header.records["agent_ring"].dtype, 1)
        slots = int(self._header["slots"][0])
        complete = (
            int(self._header["magic"][0]) == header.constants["AGENT_MAGIC"]
            and int(self._header["schema"][0]) == header.constants["RECORD_SCHEMA"]
            and 0 < slots <= (size - _DATA) // SLOT
            and slots & (slots - 1) == 0
        )
        if not complete:
            del self._header
            self._map.close()
            raise ValueError("not a ring yet")
        self._slots = np.frombuffer(self._map, np.uint8, slots * SLOT, _DATA).reshape(-1, SLOT)
        self.capacity = slots
        at, runs = header.constants["AGENT_OPEN_AT"], header.constants["AGENT_OPEN_RUNS"]
        self._open = np.frombuffer(self._map, np.uint8, runs * SLOT, at).reshape(-1, SLOT)
        self._step = header.records["step"].dtype  # a callback's run and tid are in its places
        self.agent = int(self._header["agent"][0])
        self.ns_tgid = int(self._header["pid"][0])
        self.is_light = int(self._header["mode"][0]) == header.constants["MODE_LIGHT"]
        self.why = int(self._header["why"][0])
        self.start_ns = int(self._header["start_ns"][0])
        self.hexversion = int(self._header["hexversion"][0])
        self.tells_gil = bool(self._header["gil"][0])
        self.library = bytes(self._header["library"][0]).decode(errors="replace")
        names = header.records["agent_ring"].dtype.names or ()
        own = names[names.index("gil") :]
        scalar = [n for n in own if self._header[n].ndim == 1 and n != "library"]
        # where its interpreter keeps what internals.c tells of
        self.layout = {name: int(self._header[name][0]) for name in scalar}
        self.python = bytes(self._header["python"][0]).decode(errors="replace")

    @property
    def lost(self) -> list[int]:
        """Return the records lost so far by kind - 32."""
        return [int(n) for n in self._header["lost"][0]]

    def _new(
        self, taken: int = 0
    ) -> tuple[int, list[np.ndarray[tuple[int, int], np.dtype[np.uint8]]]]:
        head, tail = int(self._header["head"][0]), max(int(self._header["tail"][0]), taken)
        count = max(0, min(head - tail, self.capacity))
        first = tail % self.capacity
        wrapped = max(0, first + count - self.capacity)
        return count, [self._slots[first : first + count - wrapped], self._slots[:wrapped]]

    def rest(self, taken: int = 0) -> bytes:
        """Return the records that nobody has taken, and leave them.

        Args:
            taken: records in the file that they were drained to; a reader that died may have
                written more than it gave back.

        """
        return b"".join(part.tobytes() for part in self._new(taken)[1])

    def open_runs(self) -> bytes:
        """Return a record of each run that its thread is in, or was when the process ended."""
        runs = []
        for slot in self._open:
            for _ in range(_TRIES):  # a living process may be writing it
                record = slot.tobytes()
                if record == slot.tobytes():
                    runs.append(record)
                    break
        return b"".join(runs)

    def open_since(self) -> tuple[Any, Any]:
        """Return for each place when the run there began, and whether there is one."""
        return self._open.view(np.int64)[:, 0], self._open[:, _KIND_AT] != 0

    def places(self) -> list[int]:
        """Return the places of threads that are or were in a run."""
        return [int(i) for i in np.flatnonzero(self._header["tstate"][0][: len(self._open)])]

    def between_runs(self) -> list[int]:
        """Return those of threads that are in none now."""
        return [place for place in self.places() if not self._open[place, _KIND_AT]]

    @property
    def head(self) -> int:
        """Return how many records were written so far."""
        return int(self._header["head"][0])

    def open_at(self, place: int) -> OpenRun:
        """Return the run open at a place, or the last one there."""
        record = self._open.view(self._step)[place, 0]
        header = self._header[0]
        return OpenRun(
            serial=int(record["run"]),
            is_open=bool(record["kind"]),
            tid=int(record["tid"]),
            begin_ns=int(record["ts_ns"]),
            tstate=int(header["tstate"][place]),
            base=int(header["base"][place]),
        )

    @property
    def orphans(self) -> list[tuple[int, int]]:
        """Return (pid, errno) of forked children that could not open a ring of their own."""
        header = self._header[0]
        pairs = zip(header["orphan_pid"].tolist(), header["orphan_errno"].tolist(), strict=True)
        return [(pid, error) for pid, error in pairs if pid > 0]

    def drain(self, fd: int) -> int:
        """Append the new records to a file and give their slots back; return how many."""
        count, parts = self._new()
        for part in parts:
            if len(part):
                write_all(fd, part.data.cast("B"))
        if count:
            self._header["tail"][0] += count
        return count

    def close(self) -> None:
        """Unmap the file."""
        del self._header, self._slots, self._open
        self._map.close()
