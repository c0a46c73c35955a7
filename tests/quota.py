"""A control group with a CPU quota, in either version of the hierarchy.

Facts: Documentation/scheduler/sched-bwc.rst, Documentation/admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PERIOD_US = 100_000


@dataclass(frozen=True)
class Hierarchy:
    """Where groups with the cpu controller are made, and in which version."""

    version: int
    root: Path

    def limit(self, group: Path, share: float) -> None:
        """Give a group so much of one CPU."""
        quota = round(share * PERIOD_US)
        if self.version == 2:
            (group / "cpu.max").write_text(f"{quota} {PERIOD_US}")
        else:
            (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(quota))

    def throttled(self, group: Path) -> tuple[int, int]:
        """Return how many periods of a group ran out of quota, and for how long in all, ns."""
        pairs = (line.split() for line in (group / "cpu.stat").read_text().splitlines())
        stat = {name: int(value) for name, value in pairs}
        time_ns = stat["throttled_usec"] * 1000 if self.version == 2 else stat["throttled_time"]
        return stat["nr_throttled"], time_ns


def hierarchy(mountinfo: str, root: Path = Path("/")) -> Hierarchy | None:
    """Return the hierarchy that has the cpu controller, from /proc/self/mountinfo's text."""
    for line in mountinfo.splitlines():
        fields, _, rest = line.partition(" - ")
        kind, _source, options = rest.split()[:3]
        place = root / fields.split()[4].lstrip("/")
        if kind == "cgroup" and "cpu" in options.split(","):
            return Hierarchy(1, place)
        if kind == "cgroup2" and "cpu" in _words(place / "cgroup.controllers"):
            return Hierarchy(2, place)
    return None


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


def here() -> Hierarchy | None:
    """Return this machine's."""
    return hierarchy(Path("/proc/self/mountinfo").read_text())


@contextlib.contextmanager
def cpu_quota(share: float) -> Iterator[tuple[Hierarchy, Path]]:
    """Make a group with a quota, and remove it when its processes are gone; OSError if refused."""
    found = here()
    if found is None:
        raise OSError("no cgroup hierarchy has the cpu controller")
    if found.version == 2:
        (found.root / "cgroup.subtree_control").write_text("+cpu")
    group = found.root / f"awaitscope-test-{os.getpid()}"
    group.mkdir()
    try:
        found.limit(group, share)
        yield found, group
    finally:
        deadline = time.monotonic() + 5
        while (group / "cgroup.procs").read_text() and time.monotonic() < deadline:
            time.sleep(0.01)
        group.rmdir()


def obstacle() -> str | None:
    """Return why no process can be given a CPU quota here."""
    try:
        with cpu_quota(0.3):
            return None
    except OSError as error:
        return f"CPU quota: {error}; fix: run as root, with a cgroup hierarchy that may be written"
