"""CPU quotas in both versions of the cgroup hierarchy, on files that look like them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.quota import hierarchy

if TYPE_CHECKING:
    from pathlib import Path

V1 = """\
25 21 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
26 25 0:23 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
27 25 0:24 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
"""
V2 = "26 25 0:23 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"


@pytest.mark.parametrize(
    ("mounts", "folder", "controllers", "version", "files"),
    [
        (
            V1,
            "sys/fs/cgroup/cpu,cpuacct",
            None,
            1,
            {"cpu.cfs_quota_us": "30000", "cpu.cfs_period_us": "100000"},
        ),
        (V2, "sys/fs/cgroup", "cpuset cpu io", 2, {"cpu.max": "30000 100000"}),
    ],
    ids=["v1", "v2"],
)
def test_quota_and_its_count(  # noqa: PLR0913, PLR0917 (one case)
    tmp_path: Path,
    mounts: str,
    folder: str,
    controllers: str | None,
    version: int,
    files: dict[str, str],
) -> None:
    """The hierarchy with the cpu controller is found; its files have their version's units."""
    group = tmp_path / folder
    group.mkdir(parents=True)
    if controllers:
        (group / "cgroup.controllers").write_text(controllers)
    found = hierarchy(mounts, tmp_path)
    assert found is not None
    assert (found.version, found.root) == (version, group)
    found.limit(group, 0.3)
    assert {path.name: path.read_text() for path in group.glob("cpu.*")} == files
    unit = {1: "throttled_time 7000000", 2: "throttled_usec 7000"}[version]
    (group / "cpu.stat").write_text(f"nr_periods 9\nnr_throttled 5\n{unit}\n")
    assert found.throttled(group) == (5, 7_000_000)


def test_no_hierarchy_with_cpus(tmp_path: Path) -> None:
    """A unified hierarchy without the cpu controller, as beside version 1, is none."""
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/cgroup.controllers").write_text("memory pids\n")
    assert hierarchy(V2, tmp_path) is None
    assert hierarchy(V1.splitlines()[0], tmp_path) is None
