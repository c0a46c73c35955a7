"""System call numbers and how the probes treat each (x86-64).

Source of the numbers: arch/x86/entry/syscalls/syscall_64.tbl. On x86-64 Python's recv arrives
as recvfrom, send as sendto, and epoll_wait may arrive as epoll_pwait (libuv): the trace keeps
the number that was called.
"""

from __future__ import annotations

# classes: see CLASS_* in probes/include/filter.h
OTHER, SEND, RECV, WRITE, READ, EPOLL_WAIT, EPOLL_CTL = range(7)
ACCEPT, CONNECT, SOCKET, FD, PLAIN, PRCTL, POLL = range(7, 14)

_TABLE: dict[str, tuple[int, int]] = {
    "read": (0, READ),
    "write": (1, WRITE),
    "close": (3, FD),
    "poll": (7, POLL),
    "mmap": (9, PLAIN),
    "munmap": (11, PLAIN),
    "pread64": (17, FD),
    "pwrite64": (18, FD),
    "readv": (19, READ),
    "writev": (20, WRITE),
    "select": (23, POLL),
    "mremap": (25, PLAIN),
    "nanosleep": (35, PLAIN),
    "socket": (41, SOCKET),
    "connect": (42, CONNECT),
    "accept": (43, ACCEPT),
    "sendto": (44, SEND),
    "recvfrom": (45, RECV),
    "sendmsg": (46, SEND),
    "recvmsg": (47, RECV),
    "shutdown": (48, FD),
    "getsockopt": (55, FD),
    "fsync": (74, FD),
    "fdatasync": (75, FD),
    "prctl": (157, PRCTL),
    "futex": (202, PLAIN),
    "epoll_create": (213, SOCKET),
    "clock_nanosleep": (230, PLAIN),
    "epoll_wait": (232, EPOLL_WAIT),
    "epoll_ctl": (233, EPOLL_CTL),
    "pselect6": (270, POLL),
    "ppoll": (271, POLL),
    "epoll_pwait": (281, EPOLL_WAIT),
    "accept4": (288, ACCEPT),
    "epoll_create1": (291, SOCKET),
    "recvmmsg": (299, RECV),
    "sendmmsg": (307, SEND),
    "io_uring_enter": (426, PLAIN),
    "epoll_pwait2": (441, EPOLL_WAIT),
}
# only named when one of them took over 1 ms
_SLOW_NAMES = {
    2: "open",
    4: "stat",
    5: "fstat",
    8: "lseek",
    10: "mprotect",
    12: "brk",
    16: "ioctl",
    24: "sched_yield",
    28: "madvise",
    39: "getpid",
    56: "clone",
    57: "fork",
    58: "vfork",
    59: "execve",
    60: "exit",
    61: "wait4",
    72: "fcntl",
    78: "getdents",
    82: "rename",
    87: "unlink",
    217: "getdents64",
    221: "fadvise64",
    228: "clock_gettime",
    231: "exit_group",
    247: "waitid",
    257: "openat",
    262: "newfstatat",
    318: "getrandom",
    334: "rseq",
    435: "clone3",
}

CLASS_OF = dict(_TABLE.values())
NUMBER = {name: nr for name, (nr, _cls) in _TABLE.items()}
NAME = {nr: name for name, (nr, _cls) in _TABLE.items()} | _SLOW_NAMES


SENDS = frozenset(nr for nr, cls in CLASS_OF.items() if cls in (SEND, WRITE))
RECVS = frozenset(nr for nr, cls in CLASS_OF.items() if cls in (RECV, READ))


# in which an event loop waits: asyncio has selectors on epoll, on poll and on select
POLLS = frozenset(nr for nr, cls in CLASS_OF.items() if cls == POLL)
WAITS = POLLS | {nr for nr, cls in CLASS_OF.items() if cls == EPOLL_WAIT}


def defines() -> list[str]:
    """Return the numbers that the probes know by name, as `-DNR_NAME=number`."""
    names = ("close", "select", "pselect6", "epoll_pwait2", "futex", "io_uring_enter")
    known = {name: NUMBER[name] for name in names} | {"exit": 60}
    return [f"-DNR_{name.upper()}={nr}" for name, nr in known.items()]


def name_of(nr: int) -> str:
    """Return the name of a system call, `syscall_N` for one that has none here."""
    return NAME.get(nr, f"syscall_{nr}")
