"""What tests left in the kernel, told apart from what other tracers on this machine do meanwhile.

An object that appeared during a test counts as left unless a process that no test started has a
descriptor of it. Ids are never given twice, so what is gone once is gone.
"""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from pathlib import Path

from tracer.system.kernel import bpf_object_ids

# in the environment of what a test starts, so that it counts as ours though we no longer know it
MARK = ("AWAITSCOPE_TESTS", str(os.getpid()))
_ID = re.compile(r"^(prog|map|link)_id:\s+(\d+)$", re.MULTILINE)  # fdinfo, kernel/bpf/syscall.c
GRACE_S = 5.0  # objects are freed after an RCU grace period


def wait_for_none(before: set[tuple[str, int]]) -> set[tuple[str, int]]:
    """Wait until nothing is left beside what was there before; return what stays."""
    deadline = time.monotonic() + GRACE_S
    left = bpf_object_ids() - before
    while left:
        left -= held_by_others()
        left &= bpf_object_ids()
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    return left


def held_by_others() -> set[tuple[str, int]]:
    """Return the BPF objects that processes have which no test started."""
    held: set[tuple[str, int]] = set()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended meanwhile
            if not _is_ours(process):
                for fd in (process / "fd").iterdir():
                    held |= _object_of(fd)
    return held


def _is_ours(process: Path) -> bool:
    if process.name == str(os.getpid()):
        return True
    return "=".join(MARK).encode() in (process / "environ").read_bytes().split(b"\0")


def _object_of(fd: Path) -> set[tuple[str, int]]:
    with suppress(OSError):
        if str(fd.readlink()).startswith("anon_inode:bpf"):
            text = (fd.parent.parent / "fdinfo" / fd.name).read_text()
            return {(kind, int(n)) for kind, n in _ID.findall(text)}
    return set()
