"""Take records out of a recording as a full ring would have: known losses, known truth.

A lossless recording is kept before it is finalised. Each thinned copy of it lacks windows of
records, in the order in which they were written, and has the GAP records that tell of them.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from tracing import APPS

from tracer.correlate.trace import Trace, complete
from tracer.events.header import load
from tracer.store.layout import KERNEL_RAW, LOSSES, TraceFolder
from tracer.store.ringfile import RingFile

if TYPE_CHECKING:
    from pathlib import Path

SLOT = 64
RECORD = (
    "import sys; from pathlib import Path; from tracer.capture.session import Options, record\n"
    "done = record(Options(sys.argv[2:], Path(sys.argv[1]), agent_slots=8192), lambda line: None)\n"
    "sys.exit(done.exit_code())\n"
)
Slots = np.ndarray[Any, Any]
# from the records, and the place of the session's own, to stretches of them: (first, after last)
Choose = Callable[[Slots, int], list[tuple[int, int]]]


def record_raw(folder: Path, app: str, *args: str) -> Path:
    """Record an app and leave the trace as it is before it is finalised."""
    command = [sys.executable, str(APPS / app), *args]
    subprocess.run(
        [sys.executable, "-c", RECORD, str(folder), *command],
        capture_output=True,
        check=True,
        timeout=60,
    )
    return folder


def finished(folder: Path) -> Trace:
    """Finalise and correlate a trace, and open it."""
    trace = TraceFolder(folder)
    return Trace(trace, complete(trace))


@dataclass
class Thinner:
    """Makes thinned copies of one raw recording; the same seed gives the same copy."""

    raw: Path

    def copy(self, out: Path, seed: int, *, kernel: bool, agents: bool) -> Path:
        """Write a copy that lacks some windows of the kernel's records, the agents', or both."""
        dice = random.Random(seed)
        shutil.copytree(self.raw, out)
        folder = TraceFolder(out)
        if kernel:
            self._thin_kernel(folder, lambda bodies, own: _windows(dice, own + 1, len(bodies)))
        for path in sorted(folder.live.glob("*.ring")) if agents else ():
            self._thin_agent(folder, path, dice)
        return out

    def without(self, out: Path, calls: list[int]) -> Path:
        """Write a copy that lacks the system calls that began at these times, and nothing else."""
        shutil.copytree(self.raw, out)
        record = load().records["syscall"]

        def choose(bodies: Slots, own: int) -> list[tuple[int, int]]:
            found = np.ascontiguousarray(bodies[:, : record.dtype.itemsize]).view(record.dtype)
            lost = (found["kind"] == record.kind) & np.isin(found["ts_ns"], calls)
            return [(at, at + 1) for at in np.flatnonzero(lost).tolist() if at > own]

        self._thin_kernel(TraceFolder(out), choose)
        return out

    def _thin_kernel(self, folder: TraceFolder, choose: Choose) -> None:
        path = folder.raw / KERNEL_RAW
        slots = np.frombuffer(path.read_bytes(), np.uint8).reshape(-1, SLOT)
        bodies = slots[:, 8:]
        kinds, cpus = bodies[:, 14].copy(), bodies[:, 12:14].copy().view("<u2")[:, 0]
        switched = np.flatnonzero(kinds == (off := load().records["off_cpu"]).kind)
        cpus[switched] = np.ascontiguousarray(bodies[switched]).view(off.dtype)["in_cpu"][:, 0]
        # what the session itself writes is never lost
        own = int(np.flatnonzero(kinds == load().records["thread"].kind)[0])
        written = _written_ns(bodies, kinds)
        for cpu in np.unique(cpus).tolist():  # each has a ring, and its records are in order
            written[cpus == cpu] = np.maximum.accumulate(written[cpus == cpu])
        samples = (folder.raw / LOSSES).read_text().splitlines()
        end = json.loads(samples[-1])
        parts, lost = [slots[:own]], np.array(end["lost"])
        at = own
        for first, last in choose(bodies, own):
            gone = np.arange(first, last)
            parts.append(slots[at:first])
            for cpu in np.unique(cpus[gone]).tolist():
                mine = gone[cpus[gone] == cpu]
                np.add.at(lost[:, cpu], kinds[mine], 1)
                body = _gap("gap", written[mine], kinds[mine], 0, cpu=cpu)
                parts.append(np.concatenate([slots[first][:8], body])[None])
            at = last
        parts.append(slots[at:])
        path.write_bytes(np.concatenate(parts).tobytes())
        end["lost"] = lost.tolist()
        (folder.raw / LOSSES).write_text("\n".join([*samples[:-1], json.dumps(end)]) + "\n")

    def _thin_agent(self, folder: TraceFolder, path: Path, dice: random.Random) -> None:
        ring = RingFile(path)
        raw = folder.raw / f"agent-{path.stem}.raw"
        data = (raw.read_bytes() if raw.exists() else b"") + ring.rest()
        slots = np.frombuffer(data, np.uint8).reshape(-1, SLOT)
        kinds = slots[:, 14].copy()
        written = np.maximum.accumulate(_written_ns(slots, kinds))
        keep = np.flatnonzero(kinds == load().records["loop"].kind)  # said again until it fits
        parts, at, lost = [slots[:0]], 0, np.zeros(16, int)
        for first, last in _windows(dice, 0, len(slots)):
            gone = np.setdiff1d(np.arange(first, last), keep)
            parts += [slots[at:first], slots[np.intersect1d(np.arange(first, last), keep)]]
            if len(gone):
                np.add.at(lost, kinds[gone] - 32, 1)
                parts.append(_gap("agent_gap", written[gone], kinds[gone], 32)[None])
            at = last
        parts.append(slots[at:])
        raw.write_bytes(np.concatenate(parts).tobytes())
        fd = raw.with_suffix(".taken").open("wb")
        ring.drain(fd.fileno())
        fd.close()
        ring.close()
        samples = (folder.raw / LOSSES).read_text().splitlines()
        end = json.loads(samples[-1])
        end["agents"][path.stem] = lost.tolist()
        (folder.raw / LOSSES).write_text("\n".join([*samples[:-1], json.dumps(end)]) + "\n")


def _windows(dice: random.Random, start: int, end: int) -> list[tuple[int, int]]:
    """Choose a few stretches of records to lose, some at the very start or end."""
    if start >= end:
        return []
    places = sorted(dice.choice((start, end, *[dice.randrange(start, end)] * 6)) for _ in range(4))
    windows = []
    at = start
    for place in places:
        first = max(place, at)
        last = min(first + int(10 ** dice.uniform(0, 2.7)), end)
        if first < last:
            windows.append((first, last))
            at = last
    return windows


def _written_ns(bodies: Slots, kinds: Slots) -> np.ndarray[Any, Any]:
    """Return the last time that each record tells of: it was written then or a little later."""
    written = np.zeros(len(bodies), np.int64)
    for record in load().records.values():
        rows = np.flatnonzero(kinds == record.kind) if record.kind is not None else []
        if not len(rows):
            continue
        found = np.ascontiguousarray(bodies[rows][:, : record.dtype.itemsize]).view(record.dtype)
        ends = found["ts_ns"][:, 0].astype(np.int64)
        if "dur_ns" in found.dtype.names:
            ends += found["dur_ns"][:, 0].astype(np.int64)
        if "end_ns" in found.dtype.names:
            ends = found["end_ns"][:, 0].astype(np.int64)
        written[rows] = ends
    return written


def _gap(name: str, written: Slots, kinds: Slots, first_kind: int, cpu: int = 0) -> Slots:
    record = load().records[name]
    gap = np.zeros(1, record.dtype)
    gap["ts_ns"], gap["end_ns"] = written.min(), written.max()
    gap["kind"], gap["lost_count"] = record.kind, len(written)
    gap["kinds"] = int(np.bitwise_or.reduce(1 << (kinds.astype(np.int64) - first_kind)))
    if name == "gap":
        gap["cpu"] = cpu
    return gap.view(np.uint8)
