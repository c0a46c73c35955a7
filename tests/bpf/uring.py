"""Register and deregister descriptors with an epoll through io_uring, as libuv does.

No library: the rings are mapped and filled by hand (include/uapi/linux/io_uring.h). The last line
of stdout is JSON: `tgid`, `epfd`, and `requests`, in order: op, fd, events and result of each.
`refused` instead says why the kernel gives no ring.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import select
import socket
import struct

SETUP, ENTER = 425, 426  # system calls
GETEVENTS = 1
EPOLL_CTL = 29  # IORING_OP_EPOLL_CTL
ADD, DEL, MOD = 1, 2, 3
AT_ONCE = 8
SQE = struct.Struct("<BBHiQQIIQ24x")  # opcode, flags, ioprio, fd, off, addr, len, 0, user_data
CQE = struct.Struct("<QiI")  # user_data, res, flags

libc = ctypes.CDLL(None, use_errno=True)


class Ring:
    """A small io_uring."""

    def __init__(self) -> None:
        """Ask the kernel for one; OSError if it gives none."""
        params = (ctypes.c_uint32 * 30)()
        self.fd = libc.syscall(SETUP, AT_ONCE, params)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        self.sq_tail, self.sq_mask, self.sq_array = params[11], params[12], params[16]
        self.cq_head, self.cq_tail, self.cq_mask, self.cqes = (params[n] for n in (20, 21, 22, 25))
        size = max(self.sq_array + 4 * params[0], self.cqes + CQE.size * params[1])
        self.rings = mmap.mmap(self.fd, size, offset=0)
        self.sqes = mmap.mmap(self.fd, SQE.size * params[0], offset=0x10000000)

    def _get(self, at: int) -> int:
        return int(struct.unpack_from("<I", self.rings, at)[0])

    def _put(self, at: int, value: int) -> None:
        struct.pack_into("<I", self.rings, at, value)

    def epoll_ctl(self, epfd: int, requests: list[tuple[int, int, int]]) -> list[int]:
        """Carry out (op, fd, events) with one io_uring_enter; return each one's result."""
        events = [ctypes.create_string_buffer(struct.pack("<IQ", r[2], r[1])) for r in requests]
        tail, mask = self._get(self.sq_tail), self._get(self.sq_mask)
        for n, (op, fd, _events) in enumerate(requests):
            at = tail + n & mask
            about = ctypes.addressof(events[n])
            SQE.pack_into(self.sqes, at * SQE.size, EPOLL_CTL, 0, 0, epfd, fd, about, op, 0, n)
            self._put(self.sq_array + 4 * at, at)
        self._put(self.sq_tail, tail + len(requests))
        done = libc.syscall(ENTER, self.fd, len(requests), len(requests), GETEVENTS, None, 0)
        assert done == len(requests), os.strerror(ctypes.get_errno())
        results = [0] * len(requests)
        head, end = self._get(self.cq_head), self._get(self.cq_tail)
        for entry in range(head, end):
            at = self.cqes + (entry & self._get(self.cq_mask)) * CQE.size
            tag, result, _flags = CQE.unpack_from(self.rings, at)
            results[tag] = result
        self._put(self.cq_head, end)
        return results


def main() -> None:
    """Add, change and remove; some of it in vain; some by a plain system call."""
    try:
        ring = Ring()
    except OSError as error:
        print(json.dumps({"tgid": os.getpid(), "refused": str(error)}))
        return
    told = []
    with select.epoll() as epoll, socket.create_server(("127.0.0.1", 0)) as server:
        eventfd = os.eventfd(0)
        for requests in (
            [(ADD, server.fileno(), select.EPOLLIN), (ADD, eventfd, select.EPOLLIN)],
            [(ADD, server.fileno(), select.EPOLLIN)],  # it is there already
            [(MOD, server.fileno(), select.EPOLLIN | select.EPOLLOUT), (DEL, eventfd, 0)],
            [(DEL, eventfd, 0)],  # it is gone already
        ):
            results = ring.epoll_ctl(epoll.fileno(), requests)
            told += [[*r, result] for r, result in zip(requests, results, strict=True)]
        ring.epoll_ctl(epoll.fileno(), [(ADD, eventfd, select.EPOLLIN)])
        os.eventfd_write(eventfd, 1)  # an epoll watches it: its writes and reads are recorded
        assert epoll.poll(1)[0][0] == eventfd
        os.eventfd_read(eventfd)
        told.append([ADD, eventfd, select.EPOLLIN, 0])
        assert [row[3] for row in told[2:3]] == [-errno.EEXIST]
        facts = {"epfd": epoll.fileno(), "server": server.fileno(), "eventfd": eventfd}
    print(json.dumps({"tgid": os.getpid(), **facts, "requests": told}))


if __name__ == "__main__":
    main()
