"""What /proc says of a traced process, while it lives."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any


def what_proc_says(pid: int, live: Path) -> dict[str, Any]:
    """Return a process's program, words and owner; what cannot be read is left out.

    Args:
        pid: its number in our pid namespace.
        live: the folder of the agents' rings that our processes were told.

    """
    here, found = Path(f"/proc/{pid}"), dict[str, Any]()
    with contextlib.suppress(OSError):
        found["exe"] = str((here / "exe").readlink())
        raw = (here / "cmdline").read_bytes()[:4096]
        found["argv"] = [a.decode(errors="replace") for a in raw.split(b"\0") if a][:64]
        found["uid"] = (here / "status").stat().st_uid
        found["root"] = str((here / "root").readlink())
        asked = b"AWAITSCOPE_LIVE=" + os.fsencode(live.absolute())
        found["agent_asked"] = asked in (here / "environ").read_bytes().split(b"\0")
    return found


def maps(pid: int, path: Path) -> bool:
    """Say whether a process has a file mapped: proof that a number is that of its agent."""
    try:
        return str(path.absolute()) in Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return False
