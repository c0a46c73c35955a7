"""`run --watch-blocking`: tell of each run that holds its loop too long, while the program runs.

What it was doing follows from looks into /proc and into its frames: the trace has the exact times
afterwards. A thread that only wants a CPU is not accused.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from tracer.system.syscalls import NUMBER, name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

_TELL_AFTER_NS = 1_000_000_000  # it may never end
_GIL = "waited for the GIL"
_CPU = "on a CPU"
_UNSEEN = "cause not seen"
_NO_CPU = "wanted a CPU: others had it, or the CPU quota was used up"
_NOT_ITS_OWN = (_NO_CPU, _UNSEEN)


class Key(NamedTuple):
    """A run, or a loop iteration (`run` 0); `tid` as its process sees it."""

    agent: int
    tid: int
    run: int
    began_ns: int


@dataclass(frozen=True)
class Look:
    """A thread at one moment, from /proc/PID/task/TID: schedstat and syscall."""

    ts_ns: int
    cpu_ns: int
    wait_ns: int
    doing: str  # "" if it runs or wants to

    @classmethod
    def at(cls, ts_ns: int, task: Path, gil: range) -> Look | None:
        """Look at a thread; None if it is gone or the kernel tells nothing.

        Args:
            ts_ns: now, CLOCK_MONOTONIC.
            task: /proc/PID/task/TID.
            gil: addresses of its interpreter's GIL.

        """
        try:
            cpu, wait = (task / "schedstat").read_text().split()[:2]
            call = (task / "syscall").read_text().split()
        except (OSError, ValueError):
            return None
        doing = "blocked in a page fault" if call[0] == "-1" else ""
        if call[0].isdigit():
            waits = int(call[0]) == NUMBER["futex"] and int(call[1], 16) in gil
            doing = _GIL if waits else f"blocked in {name_of(int(call[0]))}"
        return cls(ts_ns, int(cpu), int(wait), doing)


@dataclass
class _Block:
    key: Key
    last_ns: int
    looks: list[Look] = field(default_factory=list)
    places: Counter[str] = field(default_factory=Counter)
    told: bool = False
    in_runs: bool = False

    @property
    def ns(self) -> int:
        """Return how long it took at least."""
        return self.last_ns - self.key.began_ns


@dataclass
class Watch:
    """The runs that are too long right now, and how many there were."""

    over_ns: int
    say: Callable[[str], None]
    _open: dict[Key, _Block] = field(default_factory=dict)
    _times: Counter[str] = field(default_factory=Counter)
    _held_ns: Counter[str] = field(default_factory=Counter)

    def saw(self, key: Key, now_ns: int, look: Look | None, sample: dict[str, Any] | None) -> None:
        """Take one look at what is going on."""
        block = self._open.setdefault(key, _Block(key, now_ns))
        block.last_ns = now_ns
        if look:
            block.looks.append(look)
        if sample:
            block.places[_place(sample)] += 1
            block.in_runs |= sample["run"] > 0
        if block.ns > max(_TELL_AFTER_NS, self.over_ns) and not block.told:
            self._tell(block)

    def settle(self, still_open: Iterable[Key]) -> None:
        """Tell of those that ended since."""
        for key in self._open.keys() - set(still_open):
            block = self._open.pop(key)
            if block.ns <= self.over_ns:
                continue
            if not block.told:
                self._tell(block)
            where = _where(block)
            self._times[where] += 1
            self._held_ns[where] += block.ns

    def end(self) -> None:
        """Tell of all that are still open, and count."""
        self.settle(())
        times, held_ns = sum(self._times.values()), sum(self._held_ns.values())
        self.say(f"blocking: {times} times over {self.over_ns / 1e6:.0f} ms, {held_ns / 1e9:.2f} s")
        for where, ns in self._held_ns.most_common(5):
            self.say(f"  {self._times[where]} times, {ns / 1e9:.2f} s: {where}")

    def _tell(self, block: _Block) -> None:
        block.told = True
        doing = _doing(block)
        # what libuv calls by itself, one call or many, is in no run
        if block.in_runs and not block.key.run and doing not in _NOT_ITS_OWN:
            doing = f"many callbacks, {doing}"
        self.say(f"blocking: {block.ns / 1e9:.2f} s or more, {doing}: {_where(block)}")


def _doing(block: _Block) -> str:
    """Return what most of the time between the first and the last look went to."""
    shares: Counter[str] = Counter()
    for before, after in zip(block.looks, block.looks[1:], strict=False):
        cpu, wait = after.cpu_ns - before.cpu_ns, after.wait_ns - before.wait_ns
        shares[_CPU] += cpu
        shares[_NO_CPU] += wait
        rest = after.ts_ns - before.ts_ns - cpu - wait
        # in no call and not running: its wait is counted only when it is over
        shares[after.doing or before.doing or _NO_CPU] += max(rest, 0)
    return shares.most_common(1)[0][0] if shares else _UNSEEN


def _where(block: _Block) -> str:
    """Return where it was most often; nowhere if it only wanted a CPU, or it is not known."""
    doing = _doing(block)
    if doing in _NOT_ITS_OWN or not block.places:
        return "not its own doing" if doing == _NO_CPU else "unknown place"
    return block.places.most_common(1)[0][0]


def _place(sample: dict[str, Any]) -> str:
    user, leaf, outer = sample["user"], sample["frames"][0], sample["frames"][-1]
    inner = "" if leaf == user else f" (in {leaf['name']}, {leaf['file']}:{leaf['line']})"
    called = f", in {sample['calls']}" if sample["calls"] else ""
    doing = ", collecting garbage" if sample["collecting"] else called
    return f"{outer['name']} at {user['file']}:{user['line']}{inner}{doing}"
