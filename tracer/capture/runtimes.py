"""What our programs cost, from the kernel's own statistics.

The kernel times a program only while somebody asks it to (BPF_ENABLE_STATS), and that costs each
run some 30 ns more. So it is asked for one turn of the reader now and then: after a tenth of a
second, and then whenever as much time again has passed, at most a second. What was switched on
ends with its descriptor, also if the tracer is killed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracer.system.kernel import enable_bpf_stats

if TYPE_CHECKING:
    from collections.abc import Mapping

_EVERY_NS = (100_000_000, 1_000_000_000)


def run_time(fd: int) -> tuple[int, int]:
    """Return how long a program ran so far, ns, and how often: while statistics were on."""
    lines = Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines()
    fields = dict(line.split(":\t", 1) for line in lines)
    return int(fields["run_time_ns"]), int(fields["run_cnt"])


class RunTimes:
    """Samples of how long programs run; turn() is called as often as the reader wakes."""

    def __init__(self, programs: Mapping[str, int]) -> None:
        """Take the programs' descriptors by the names of their hooks; nothing is measured yet."""
        self._programs = programs
        self._spent = dict.fromkeys(programs, (0, 0))
        self._before: dict[str, tuple[int, int]] = {}
        self._statistics: int | None = None
        self._first_ns = self._began_ns = self._next_ns = self._sampled_ns = 0
        self._refused: str | None = None

    def turn(self, now_ns: int) -> None:
        """End the sample that is being taken, or begin one if it is time.

        Args:
            now_ns: CLOCK_MONOTONIC.

        """
        if self._statistics is not None:
            self.end(now_ns)
        elif now_ns >= self._next_ns and self._refused is None:
            self._begin(now_ns)

    def _begin(self, now_ns: int) -> None:
        self._first_ns = self._first_ns or now_ns
        try:
            self._before = {hook: run_time(fd) for hook, fd in self._programs.items()}
            self._statistics = enable_bpf_stats()
        except (OSError, KeyError) as error:
            self._refused = f"the kernel gives no run times: {error}"
        self._began_ns = now_ns

    def end(self, now_ns: int) -> None:
        """End the sample that is being taken, if one is."""
        if self._statistics is None:
            return
        os.close(self._statistics)
        self._statistics = None
        self._sampled_ns += now_ns - self._began_ns
        shortest, longest = _EVERY_NS
        self._next_ns = now_ns + min(max(now_ns - self._first_ns, shortest), longest)
        for hook, fd in self._programs.items():
            after, before, spent = run_time(fd), self._before[hook], self._spent[hook]
            self._spent[hook] = (
                spent[0] + after[0] - before[0],
                spent[1] + after[1] - before[1],
            )

    def document(self) -> dict[str, Any]:
        """Return what was seen: `sampled_ns`, and of each hook `run_ns` and `runs` within it."""
        if self._refused is not None:
            return {"reason": self._refused}
        return {
            "sampled_ns": self._sampled_ns,
            "hooks": [
                {"hook": hook, "run_ns": run_ns, "runs": runs}
                for hook, (run_ns, runs) in self._spent.items()
            ],
        }
