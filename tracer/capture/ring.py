"""The consumer side of the BPF ring map.

Whole batches are copied and nothing is decoded. Memory order: x86-64 loads are ordered, so
plain loads of the producer position, then the slots, are right (arm64 would need acquire).
"""

from __future__ import annotations

import mmap
import os

import numpy as np

PAGE = os.sysconf("SC_PAGESIZE")
SLOT = 64
_BUSY = 0x80000000
_LARGEST, _SMALLEST, _ALL = 16 << 20, 256 << 10, 128 << 20


def default_ring_bytes(cpus: int) -> int:
    """Return the size of each CPU's ring, a power of two: 16 MiB, less where CPUs are many.

    The kernel's memory for all of them stays within 128 MiB, but a ring is never smaller than
    256 KiB: 4096 records, at 10 ms from one emptying to the next.
    """
    fair = 1 << (_ALL // cpus).bit_length() - 1
    return max(_SMALLEST, min(_LARGEST, fair))


class KernelRing:
    """The consumer side of a BPF_MAP_TYPE_RINGBUF whose records are all 56 bytes.

    Layout (kernel/bpf/ringbuf.c): consumer page, producer page, the data twice in a row, so
    that a batch is contiguous across the wrap. Slots stay 64-byte aligned.
    """

    def __init__(self, map_fd: int, size_bytes: int) -> None:
        """Map the ring; `size_bytes` is the size it was created with."""
        self._consumer = mmap.mmap(map_fd, PAGE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self._producer = mmap.mmap(
            map_fd, PAGE + 2 * size_bytes, mmap.MAP_SHARED, mmap.PROT_READ, offset=PAGE
        )
        self._cons = np.frombuffer(self._consumer, np.uint64, 1)
        self._prod = np.frombuffer(self._producer, np.uint64, 1)
        self._lengths = np.frombuffer(self._producer, np.uint32, 2 * size_bytes // 4, PAGE).reshape(
            -1, SLOT // 4
        )[:, 0]
        self._slots = np.frombuffer(self._producer, np.uint8, 2 * size_bytes, PAGE).reshape(
            -1, SLOT
        )
        self.capacity = size_bytes // SLOT
        self._mask = size_bytes - 1
        self._pos = int(self._cons[0])

    def take(self) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
        """Return the finished slots, shape (n, 64); valid until release()."""
        count = (int(self._prod[0]) - self._pos) // SLOT
        first = (self._pos & self._mask) // SLOT
        busy = (self._lengths[first : first + count] & _BUSY) != 0
        if busy.any():
            count = int(busy.argmax())
        return self._slots[first : first + count]

    def is_full(self) -> bool:
        """Say whether nothing fits any more: something may be lost until the next release()."""
        return int(self._prod[0]) - self._pos >= self._mask + 1 - SLOT

    def release(self, count: int) -> None:
        """Give `count` slots back, after they were written."""
        self._pos += count * SLOT
        self._cons[0] = self._pos

    def close(self) -> None:
        """Unmap; the map itself lives as long as its loader."""
        del self._cons, self._prod, self._lengths, self._slots
        self._consumer.close()
        self._producer.close()
