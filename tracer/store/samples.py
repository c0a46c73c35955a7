"""The sampler's file as the table `sample`: what long runs were doing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tracer.store.losses import json_lines

if TYPE_CHECKING:
    from pathlib import Path

    from tracer.store.agents import Agents

SAMPLE_DOC = {
    "id": "number of the row in this table, in order of ts_ns",
    "ts_ns": "time, CLOCK_MONOTONIC ns; the run was open before and after",
    "agent": "index into the manifest's agents",
    "tid": "the thread",
    "run": "the step or callback it was in (step.run, callback.run), 0 none: it was in C code",
    "where": "file:line of the innermost frame outside the libraries; if all are in one, outermost",
    "leaf": "file:line and name of the innermost frame",
    "chain": "file:line and name of each frame down to the loop, the innermost first",
    "c_function": "C function that the innermost frame was calling, empty for none;"
    " NULL: not known",
    "collecting": "this thread was collecting garbage",
    "holder_tid": "another thread had the GIL: its id, else NULL",
    "holder_leaf": "file:line and name of its innermost frame, NULL if it was not readable",
}
_TYPES = {
    "where": "VARCHAR",
    "leaf": "VARCHAR",
    "chain": "VARCHAR[]",
    "c_function": "VARCHAR",
    "collecting": "BOOLEAN",
    "holder_leaf": "VARCHAR",
}
SAMPLE_COLUMNS = ", ".join(f'"{name}" {_TYPES.get(name, "BIGINT")}' for name in SAMPLE_DOC)


def sample_rows(path: Path, agents: Agents) -> list[tuple[Any, ...]]:
    """Return the table's rows, in order of time."""
    rows = []
    for sample in json_lines(path):
        index = agents.rings.get(sample["agent"])
        if index is None:
            continue
        tids = agents.tids.get(index, {})
        frames, user, holder = sample["frames"], sample["user"], sample["holder"] or {}
        rows.append(
            (
                sample["ts_ns"],
                index,
                tids.get(sample["tid"], sample["tid"]),
                sample["run"],
                f"{user['file']}:{user['line']}",
                _text(frames[0]),
                [_text(frame) for frame in frames],
                sample.get("calls"),
                sample["collecting"],
                tids.get(holder["tid"], holder["tid"]) if holder else None,
                _text(holder) if "file" in holder else None,
            )
        )
    rows.sort(key=lambda row: row[0])
    return [(at, *row) for at, row in enumerate(rows)]


def _text(frame: dict[str, Any]) -> str:
    return f"{frame['file']}:{frame['line']} {frame['name']}"
