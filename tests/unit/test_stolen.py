"""Whether the machine tells of CPU time that a hypervisor takes from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tracer.system.btf import Btf
from tracer.system.stolen import untold

if TYPE_CHECKING:
    from pathlib import Path

VIRTUAL, REAL = "fpu hypervisor sse2", "fpu sse2"


@pytest.mark.parametrize(
    ("flags", "ticks", "kernel", "why_not"),
    [
        (VIRTUAL, 7, "asks", None),
        (VIRTUAL, 0, "asks", "told of none since boot"),
        (VIRTUAL, 7, "old", "CONFIG_PARAVIRT"),
        (REAL, 0, "asks", None),
        (REAL, 0, "old", None),
    ],
)
def test_what_is_not_told_has_a_reason(  # noqa: PLR0913, PLR0917 (a table's columns)
    tmp_path: Path, tiny_btf: bytes, flags: str, ticks: int, kernel: str, why_not: str | None
) -> None:
    """In a virtual machine the kernel must ask and the hypervisor answer; else there is none."""
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(
        f"model name\t: a hypervisor\nflags\t\t: {flags}\nbugs\t: \n"
    )
    (tmp_path / "proc/stat").write_text(
        f"cpu  1 2 3 4 5 6 7 {ticks} 9 0\ncpu0 1 2 3 4 5 6 7 8 9 0\n"
    )
    reason = untold(Btf(tiny_btf) if kernel == "asks" else None, tmp_path)
    assert (reason is None) == (why_not is None)
    assert (why_not or "") in (reason or "")
