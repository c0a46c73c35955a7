"""Why a recording ended before its command did, and how much room it leaves on its disk."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

STOPS = {
    "duration": "--duration was over",
    "disk_full": "its disk was full",
    "write_failed": "its folder could not be written any more",
}
# what is recorded becomes tables on the same disk, before it is dropped: they take less than half
_TABLES_SHARE = 0.5
_MARGIN_BYTES = 4 << 20


def is_nearly_full(folder: Path, raw_bytes: int) -> bool:
    """Say whether a trace of so many recorded bytes could soon not be finished on its disk."""
    disk = os.statvfs(folder)
    free = disk.f_bavail * disk.f_frsize
    return disk.f_blocks > 0 and free < raw_bytes * _TABLES_SHARE + _MARGIN_BYTES


def stop_of(error: OSError) -> str:
    """Return the reason for an error while recording."""
    return "disk_full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "write_failed"
