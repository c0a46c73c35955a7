"""Does this machine tell of the CPU time that a hypervisor takes from it?

The kernel asks the hypervisor's steal clock (paravirt_steal_clock) and keeps, for each run queue,
what it has seen of it: the scheduler at every tick and switch (update_rq_clock_task), the
accounting for /proc/stat at every tick (steal_account_process_time).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tracer.system.kernel import read_text

if TYPE_CHECKING:
    from tracer.system.btf import Btf

# the first only with CONFIG_PARAVIRT_TIME_ACCOUNTING (Debian builds without it), the second with
# CONFIG_PARAVIRT: what is less than a tick may then be found at a thread that came after
STEAL_COUNTERS = (("rq", "prev_steal_time_rq"), ("rq", "prev_steal_time"))
_STEAL_AT = 8  # of the line `cpu` of /proc/stat, proc(5)


def stolen_ticks(root: Path = Path("/")) -> int:
    """Return what was stolen from all CPUs since boot, in ticks of USER_HZ; 0 if it is not told."""
    total = read_text(root / "proc/stat").partition("\n")[0].split()
    return int(total[_STEAL_AT]) if len(total) > _STEAL_AT else 0


def untold(btf: Btf | None, root: Path = Path("/")) -> str | None:
    """Return why stolen time is not told, None if it is or if there is nobody to steal.

    Args:
        btf: the kernel's types, None if there are none.
        root: where /proc is looked for.

    """
    flags = read_text(root / "proc/cpuinfo").partition("\nflags")[2].partition("\n")[0]
    if "hypervisor" not in flags.split():
        return None
    if btf is None or not any(btf.has_member(*counter) for counter in STEAL_COUNTERS):
        return "this kernel does not ask for it (CONFIG_PARAVIRT)"
    if not stolen_ticks(root):
        return "the hypervisor has told of none since boot: perhaps it never does"
    return None
