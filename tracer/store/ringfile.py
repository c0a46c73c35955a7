"""An agent's ring file: `struct agent_ring` of record.h and its slots.

The file is shared memory while the process lives and stays readable after its death.
"""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING

import numpy as np

from tracer.events.header import load as load_header

if TYPE_CHECKING:
    from pathlib import Path

SLOT = 64
_DATA = 4096


def write_all(fd: int, data: memoryview) -> None:
    """Write every byte; os.write may be short on a nearly full disk or a pipe."""
    while data:
        data = data[os.write(fd, data) :]


class RingFile:
    """A mapped ring file."""

    def __init__(self, path: Path) -> None:
        """Map the file; ValueError if it is not (yet) a complete ring of our schema."""
        header = load_header()
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
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
        self._count = slots
        self.agent = int(self._header["agent"][0])
        self.ns_tgid = int(self._header["pid"][0])
        self.start_ns = int(self._header["start_ns"][0])
        self.hexversion = int(self._header["hexversion"][0])
        self.python = bytes(self._header["python"][0]).decode(errors="replace")

    @property
    def lost(self) -> list[int]:
        """Return the records lost so far by kind - 32."""
        return [int(n) for n in self._header["lost"][0]]

    def _new(self) -> tuple[int, list[np.ndarray[tuple[int, int], np.dtype[np.uint8]]]]:
        head, tail = int(self._header["head"][0]), int(self._header["tail"][0])
        count = max(0, min(head - tail, self._count))
        first = tail % self._count
        wrapped = max(0, first + count - self._count)
        return count, [self._slots[first : first + count - wrapped], self._slots[:wrapped]]

    def rest(self) -> bytes:
        """Return the records that nobody has taken, and leave them."""
        return b"".join(part.tobytes() for part in self._new()[1])

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
        del self._header, self._slots
        self._map.close()
