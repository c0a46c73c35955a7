"""The table of hooks and kernels in the probes' README."""

from __future__ import annotations

from tracer.capture.hooks import HOOKS
from tracer.paths import probes_dir

RUNGS = {"raw tracepoint", "fentry", "kprobe", "absent"}


def test_the_table_has_every_hook() -> None:
    """A hook that was added or removed is in the table that `make vm-matrix` writes."""
    _, _, rest = (probes_dir() / "README.md").read_text().partition("<!-- kernels: ")
    rows = [line.strip("|").split("|") for line in rest.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in row] for row in rows[: len(HOOKS) + 1]]
    assert cells[0][0] == "hook"
    assert [row[0] for row in cells[1:]] == [hook.name for hook in HOOKS]
    assert {rung for row in cells[1:] for rung in row[1:]} <= RUNGS
