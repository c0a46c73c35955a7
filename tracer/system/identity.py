"""Touch files as their owner does, although we are root."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_LIBC = ctypes.CDLL(None)


@contextlib.contextmanager
def acting_as(uid: int, gid: int) -> Iterator[None]:
    """Let this thread touch files only as the user may, and make files that are theirs.

    For a folder whose owner is not trusted: a link that they put there leads root nowhere. Only
    the file system's identity changes (setfsuid(2)), and with it the capabilities for files are
    gone; those to trace stay, and other threads stay root. Threads started meanwhile keep it.
    Without root, or for root, nothing changes.
    """
    if os.geteuid() != 0 or uid == 0:
        yield
        return
    groups = os.getgroups()
    os.setgroups(_groups(uid, gid))
    before = _LIBC.setfsgid(gid), _LIBC.setfsuid(uid)
    try:
        if _LIBC.setfsuid(-1) != uid:  # -1 changes nothing; there is no error to look at
            raise PermissionError(f"cannot act as user {uid}")
        yield
    finally:
        _LIBC.setfsuid(before[1])
        _LIBC.setfsgid(before[0])
        os.setgroups(groups)


@cache
def _groups(uid: int, gid: int) -> list[int]:
    try:
        return os.getgrouplist(pwd.getpwuid(uid).pw_name, gid)
    except KeyError:
        return [gid]
