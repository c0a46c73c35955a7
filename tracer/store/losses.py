"""What was lost, over time: the samples that the session took, as a table and as gaps.

A sample is taken each second, and at once after a drain that found the ring full. A ring is full
until it is drained: what a sample does not know yet was lost after the last drained record.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tracer.events.header import load as load_header
from tracer.store.layout import reading

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tracer.store.decode import Columns

_FIRST_AGENT_KIND = 32
LOSS_DOC = {
    "ts_ns": "time of the sample, CLOCK_MONOTONIC ns",
    "event": "kind of record",
    "cpu": "CPU of the kernel's records, NULL for an agent's",
    "agent": "index into the manifest's agents, NULL for the kernel's records",
    "seen": "records so far that were to be written, NULL for an agent's",
    "lost": "of these, records so far that the full ring had no room for",
}


@dataclass(frozen=True)
class Losses:
    """The samples: times, then [sample][kind][cpu], then the agents' [kind - 32] by ring name."""

    ts_ns: np.ndarray[Any, Any]
    seen: np.ndarray[Any, Any]
    lost: np.ndarray[Any, Any]
    agents: list[dict[str, list[int]]]

    def by_kind(self) -> dict[str, int]:
        """Return what the kernel's ring lost in all, by event."""
        if not len(self.ts_ns):
            return {}
        total = self.lost[-1].sum(axis=1).tolist()
        return {
            record.name: total[record.kind]
            for record in load_header().records.values()
            if record.kind is not None and record.kind < len(total)
        }

    def of_agent(self, ring: str) -> list[int]:
        """Return what an agent had lost when last looked at, by kind - 32."""
        return self.agents[-1].get(ring, []) if self.agents else []

    def untold(self, told: list[int], start_ns: int) -> list[dict[str, int]]:
        """Return a gap for each CPU whose GAP records tell of less than was lost.

        Args:
            told: losses in GAP records, by CPU.
            start_ns: when the recording began.

        """
        gaps = []
        totals = self.lost.sum(axis=1)
        for cpu in range(totals.shape[1] if len(totals) else 0):
            known = told[cpu] if cpu < len(told) else 0
            more = np.flatnonzero(totals[:, cpu] > known)
            if len(more):
                first = int(more[0])
                gaps.append(
                    {
                        "cpu": cpu,
                        "ts_ns": int(self.ts_ns[first - 1]) if first else start_ns,
                        "end_ns": int(self.ts_ns[-1]),
                        "lost_count": int(totals[-1, cpu]) - known,
                    }
                )
        return gaps

    def columns(self, rings: dict[str, int]) -> Columns:
        """Return the table `loss`, a row wherever a count grew; -1 for what does not apply.

        Args:
            rings: index of each agent by the name of its ring.

        """
        names = {r.kind: r.name for r in load_header().records.values() if r.kind is not None}
        counts = np.stack([self.seen, self.lost])
        before = np.concatenate([np.zeros_like(counts[:, :1]), counts[:, :-1]], axis=1)
        sample, kind, cpu = np.nonzero((counts != before).any(axis=0))
        grown = [
            (ts_ns, names[_FIRST_AGENT_KIND + at], -1, rings[ring], -1, count)
            for ts_ns, ring, at, count in self._grown()
            if ring in rings and _FIRST_AGENT_KIND + at in names
        ]
        kernel = (
            self.ts_ns[sample],
            np.array([names.get(k, "") for k in kind.tolist()], object),
            cpu,
            np.full(len(sample), -1),
            self.seen[sample, kind, cpu],
            self.lost[sample, kind, cpu],
        )
        agents = list(zip(*grown, strict=True)) or [()] * len(LOSS_DOC)
        return {
            name: np.concatenate([of_kernel, np.array(of_agents, of_kernel.dtype)])
            for name, of_kernel, of_agents in zip(LOSS_DOC, kernel, agents, strict=True)
        }

    def _grown(self) -> Iterator[tuple[int, str, int, int]]:
        """Give (time, ring, kind - 32, count) wherever an agent's count of losses grew."""
        last: dict[tuple[str, int], int] = {}
        for ts_ns, agents in zip(self.ts_ns.tolist(), self.agents, strict=True):
            for ring, counts in agents.items():
                for at, count in enumerate(counts):
                    if count > last.get((ring, at), 0):
                        last[ring, at] = count
                        yield ts_ns, ring, at, count


def read_losses(path: Path) -> Losses:
    """Read the samples of a recording; what is none (cut off, or another's) is dropped."""
    kinds = load_header().constants["KIND_MAX"]
    samples = [s for line in json_lines(path) if (s := _sample(line, kinds)) is not None]
    cpus = samples[-1][1].shape[1] if samples else 0
    samples = [s for s in samples if s[1].shape[1] == cpus]
    return Losses(
        ts_ns=np.array([s[0] for s in samples], np.int64),
        seen=np.array([s[1] for s in samples], np.int64).reshape(len(samples), kinds, cpus),
        lost=np.array([s[2] for s in samples], np.int64).reshape(len(samples), kinds, cpus),
        agents=[s[3] for s in samples],
    )


def _sample(
    line: Any,  # noqa: ANN401 (from a file)
    kinds: int,
) -> tuple[int, np.ndarray[Any, Any], np.ndarray[Any, Any], dict[str, list[int]]] | None:
    try:
        seen, lost = np.array(line["seen"], np.int64), np.array(line["lost"], np.int64)
        agents = {str(ring): [int(n) for n in counts] for ring, counts in line["agents"].items()}
        if seen.shape == lost.shape and seen.ndim == 2 and len(seen) == kinds:
            return int(np.int64(line["ts_ns"])), seen, lost, agents
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
        pass
    return None


def json_lines(path: Path) -> list[dict[str, Any]]:
    """Read a JSON-lines file; a last line that was cut off is dropped."""
    if not path.exists():
        return []
    entries = []
    with reading(path) as file:
        for line in file:
            try:
                entries.append(json.loads(line))
            except ValueError:  # no JSON, or no UTF-8
                continue
    return entries
