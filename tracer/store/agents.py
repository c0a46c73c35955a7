"""The agents' records: many rings, one set of tables.

Serials are per process; a row's `agent` says whose. Thread ids are those the process sees;
the kernel's AGENT_THREAD records map them to the root pid namespace.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tracer.events.header import load as load_header
from tracer.store import decode
from tracer.store.layout import reading
from tracer.store.ringfile import SLOT, RingFile

if TYPE_CHECKING:
    from pathlib import Path

    from tracer.store.layout import TraceFolder
    from tracer.store.losses import Losses

Records = dict[str, np.ndarray[Any, Any]]
_RUNS = ("step", "callback")
_REASON_BYTES = 400


@dataclass
class Agents:
    """All agents of a trace: `infos` for the manifest, records, strings, counts by kind.

    `rings` is each agent's index in `infos` by the name of its ring; `tids` are its thread ids in
    the root pid namespace by those that its process sees.
    """

    infos: list[dict[str, Any]] = field(default_factory=list)
    strings: list[tuple[int, int, str]] = field(default_factory=list)
    lost: dict[str, int] = field(default_factory=dict)
    written: dict[str, int] = field(default_factory=dict)
    rings: dict[str, int] = field(default_factory=dict)
    names: dict[tuple[int, int], str] = field(default_factory=dict)
    tids: dict[int, dict[int, int]] = field(default_factory=dict)
    _parts: dict[str, list[tuple[int, decode.Rows]]] = field(default_factory=dict)

    def columns(self, name: str) -> decode.Columns:
        """Return a table's stored columns over all agents, sorted by ts_ns; they are then freed."""
        parts = self._parts.pop(name, [])
        nothing = np.zeros(0, load_header().records[name].dtype)
        rows = np.concatenate([nothing, *(rows for _agent, rows in parts)])
        agent = np.repeat(
            np.array([agent for agent, _rows in parts], np.int32),
            [len(rows) for _agent, rows in parts],
        )
        del parts
        order = np.argsort(rows["ts_ns"], kind="stable")
        rows, agent = rows[order], agent[order]
        columns = decode.columns_of(name, rows) | {"agent": agent}
        if name == "task":
            keys = zip(agent.tolist(), rows["task"].tolist(), strict=True)
            columns["name"] = np.array([self.names.get(key, "") for key in keys], dtype=object)
        return columns

    def add(self, name: str, agent: int, rows: decode.Rows) -> None:
        """Add one agent's records of a table."""
        self._parts.setdefault(name, []).append((agent, rows))


def read_agents(
    folder: TraceFolder, kernel: Records, losses: Losses, end_ns: int, *, cut: bool
) -> Agents:
    """Read every agent's ring file and drained records, and the reasons of those without one.

    Args:
        folder: the trace, not yet finalised.
        kernel: the kernel's records.
        losses: the samples.
        end_ns: end of the recording; an agent goes on after it if its process does.
        cut: the tracer died.

    """
    agents = Agents()
    for path in sorted(folder.live.glob("*.ring")):
        try:
            ring = RingFile(path)
        except (OSError, ValueError) as error:
            agents.infos.append({"mode": "none", "reason": f"unreadable ring: {error}"})
            continue
        agents.rings[path.stem] = len(agents.infos)
        drained = decode.agent_slots(folder.raw / f"agent-{path.stem}.raw")
        opened = decode.agent_records(ring.open_runs())  # before the rest: each is in one of them
        records = decode.agent_records(drained + ring.rest(len(drained) // SLOT))
        lost = losses.of_agent(path.stem)
        if cut and _filled_ns(records) <= end_ns:
            lost = ring.lost  # it was full before the recording ended
        _read_one(agents, ring, _Part(records, opened, lost, end_ns), kernel)
    for path in sorted(folder.live.glob("*.none")):
        tgid = path.stem.partition("-")[0]
        if tgid.isascii() and tgid.isdigit():
            agents.infos.append({"mode": "none", "reason": _reason(path), "ns_tgid": int(tgid)})
    return agents


def _reason(path: Path) -> str:
    """Return why a process has no agent, as it left it behind."""
    try:
        with reading(path) as file:
            return file.read(_REASON_BYTES).decode(errors="replace").strip()
    except OSError as error:
        return f"unreadable reason: {error.strerror}"


@dataclass
class _Part:
    """What one agent left: records, the runs that were open, losses by kind - 32."""

    records: Records
    opened: Records
    lost: list[int]
    end_ns: int


def _read_one(agents: Agents, ring: RingFile, part: _Part, kernel: Records) -> None:
    index = len(agents.infos)
    threads = kernel.get("agent_thread")
    ours = [] if threads is None else list(threads[threads["agent"] == ring.agent])
    tids = agents.tids[index] = {int(t["ns_tid"]): int(t["tid"]) for t in ours}
    tgid = int(ours[0]["tgid"]) if ours else ring.ns_tgid
    header = load_header()
    records = part.records
    lost = {
        record.name: part.lost[record.kind - 32] if record.kind - 32 < len(part.lost) else 0
        for record in header.records.values()
        if record.kind is not None and record.kind >= 32
    }
    _place_untold_loss(records, sum(lost.values()))
    _add_open_runs(records, part.opened, kernel.get("thread"), tids, part.end_ns)
    records = {
        name: rows[rows["ts_ns"] <= np.uint64(part.end_ns)] if name != "string" else rows
        for name, rows in records.items()
    }
    agents.infos.append(
        {
            **_mode(ring),
            "agent": f"{ring.agent:016x}",
            "tgid": tgid,
            "ns_tgid": ring.ns_tgid,
            "python": ring.python,
            "hexversion": ring.hexversion,
            "gil": ring.tells_gil,
            "frames": ring.layout["code_type"] > 0,
            "start_ns": ring.start_ns,
            "records": sum(len(r) for r in records.values()),
            "lost": sum(lost.values()),
        }
    )
    agents.infos += [
        {
            "mode": "none",
            "ns_tgid": pid,
            "reason": f"live_unwritable: {os.strerror(error)}: it changed its user or its root",
        }
        for pid, error in ring.orphans
    ]
    for name, count in lost.items():
        agents.lost[name] = agents.lost.get(name, 0) + count
    for name, rows in records.items():
        agents.written[name] = agents.written.get(name, 0) + len(rows)
    agents.strings += [
        (index, key, text) for key, text in decode.strings_of(records.get("string")).items()
    ]
    for row in records.get("task_name", ()):
        name = bytes(row["name"]).decode("utf-8", "replace")
        agents.names[index, int(row["task"])] = name
    for name, rows in records.items():
        if name in ("string", "task_name"):
            continue
        for key in ("tid", "wake_tid"):
            if key in (rows.dtype.names or ()):
                rows[key] = _mapped(rows[key], tids)
        agents.add(name, index, rows)


def _mode(ring: RingFile) -> dict[str, str]:
    """Return `mode`, and in light mode the `reason` why there is no agent in C."""
    if not ring.is_light:
        return {"mode": "c"}
    whys = {n: name for name, n in load_header().constants.items() if name.startswith("WHY_")}
    return {"mode": "light", "reason": whys.get(ring.why, "?").removeprefix("WHY_").lower()}


def _filled_ns(records: Records) -> int:
    return max((decode.written_ns(rows) for rows in records.values()), default=0)


def _place_untold_loss(records: Records, lost: int) -> None:
    """Add a gap up to the end for losses after which the agent wrote nothing any more."""
    gap = load_header().records["agent_gap"]
    told = records.get("agent_gap", np.zeros(0, gap.dtype))
    untold = lost - int(told["lost_count"].sum())
    if untold <= 0:
        return
    row = np.zeros(1, gap.dtype)
    row["kind"], row["lost_count"] = gap.kind, untold
    row["ts_ns"] = max((int(r["ts_ns"].max()) for r in records.values()), default=0)
    row["end_ns"] = np.iinfo(np.int64).max
    records["agent_gap"] = np.concatenate([told, row])


def _add_open_runs(
    records: Records,
    opened: Records,
    threads: np.ndarray[Any, Any] | None,
    tids: dict[int, int],
    end_ns: int,
) -> None:
    """Add the runs that had not ended; each ends with its process, or with the recording."""
    recorded = [records[name]["run"] for name in _RUNS if name in records]
    known = np.concatenate(recorded) if recorded else np.zeros(0, np.uint32)
    header = load_header()
    ends = [header.constants["THREAD_EXIT"], header.constants["THREAD_EXEC"]]
    over = None if threads is None else threads[np.isin(threads["what"], ends)]
    for name in _RUNS:
        rows = opened.get(name)
        if rows is None:
            continue
        rows = rows[~np.isin(rows["run"], known)]
        for row in rows:
            end = end_ns
            if over is not None:
                tid = tids.get(int(row["tid"]), int(row["tid"]))
                after = over[(over["tid"] == tid) & (over["ts_ns"] >= row["ts_ns"])]["ts_ns"]
                end = int(after.min(initial=end_ns))
            row["end_ns"] = max(end, int(row["ts_ns"]))
        before = records.get(name)
        records[name] = rows if before is None else np.concatenate([before, rows])


def _mapped(values: np.ndarray[Any, Any], mapping: dict[int, int]) -> np.ndarray[Any, Any]:
    mapped = values.copy()
    for ns_tid, tid in mapping.items():
        mapped[values == ns_tid] = tid
    return mapped
