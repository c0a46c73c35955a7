"""Correlate a finalised trace: write the tables `await`, `leg`, `task_total`, `work_total`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np

from tracer.correlate import lag
from tracer.correlate.awaits import await_columns, callback_columns
from tracer.correlate.events import Events, Runs
from tracer.correlate.evidence import add_evidence
from tracer.correlate.index import Ints, sum_by
from tracer.correlate.legs import Legs, legs_of
from tracer.correlate.picture import picture_of
from tracer.correlate.tasks import task_rows
from tracer.correlate.words import STAGES
from tracer.correlate.works import work_rows

if TYPE_CHECKING:
    from tracer.store.layout import TraceFolder

TABLES = ("await", "leg", "task_total", "work_total")


def correlate(folder: TraceFolder, manifest: dict[str, Any]) -> None:
    """Read the event tables, follow every await, write the result beside them."""
    events = Events(folder, manifest)
    picture = picture_of(events)
    runs, tasks = picture.runs, picture.tasks
    legs = legs_of(picture)
    observed = add_evidence(events, picture.streams, legs)
    rows = await_columns(picture, legs)
    loose = callback_columns(picture)
    rows = {key: np.concatenate([value, loose[key]]) for key, value in rows.items()}
    order = np.argsort(rows["start_ns"], kind="stable")
    rows = {key: value[order] for key, value in rows.items()}
    rows["await_id"] = np.arange(1, len(order) + 1)
    totals = task_rows(events, tasks, _step_cpu(events, runs))
    totals["awaits"] = sum_by(rows["task_id"], np.ones(len(order), np.int64), tasks.count + 1)[1:]
    names = np.concatenate([np.array([""], object), totals["task_name"]])
    coroutines = np.concatenate([np.array([""], object), totals["coroutine"]])
    owner = np.maximum(rows["task_id"], 0)
    rows["task_name"], rows["coroutine"] = names[owner], coroutines[owner]
    await_of = np.empty(len(order), np.int64)
    await_of[order] = rows["await_id"]
    connection = duckdb.connect(config={"threads": 2})
    _write(connection, folder, "await", rows)
    _write(connection, folder, "leg", _leg_columns(legs, await_of, observed))
    _write(connection, folder, "task_total", totals)
    _write(connection, folder, "work_total", work_rows(picture, legs, await_of))
    connection.close()


def _step_cpu(events: Events, runs: Runs) -> Ints:
    """Return each step's time on a CPU, ns, in rows of `step`."""
    step = events["step"]
    cpu = np.zeros(len(step["ts_ns"]), np.int64)
    for tid in np.unique(step["tid"]).tolist():
        rows = np.flatnonzero(step["tid"] == tid)
        time = lag.ThreadTime(tid, events["off_cpu"], runs)
        cpu[rows] = time.between(step["ts_ns"][rows], step["end_ns"][rows], lag.BUSY)
    return cpu


def _leg_columns(legs: Legs, await_of: Ints, observed: Ints) -> dict[str, Any]:
    columns: dict[str, Any] = {
        "await_id": await_of[legs.group],
        "trip": np.arange(len(legs.group))
        - np.searchsorted(legs.group, legs.group, side="left")
        + 1,
        "by": legs.by,
        "sock": legs.sock,
        "tid": legs.tid,
        "parked_ns": legs.parked,
        "observed_steps": observed,
        "reasons": legs.reasons,
    }
    columns |= {f"t{k}_ns": cut for k, cut in enumerate(legs.cuts)}
    columns |= {f"{n}_ns": stage for n, stage in zip(STAGES, legs.stages, strict=True)}
    return columns | legs.rows


def _write(
    connection: duckdb.DuckDBPyConnection, folder: TraceFolder, name: str, columns: dict[str, Any]
) -> None:
    """Write a table; UNKNOWN (-1) becomes NULL in columns that may be unknown."""
    source = columns  # noqa: F841 (DuckDB reads it by its name)
    always = {"by", "sock", "reasons", "sent_bytes", "recv_bytes", "fds", "total_ns"}
    parts = []
    for column, value in columns.items():
        if column == "fds":
            parts.append(f'CAST(CAST("{column}" AS JSON) AS BIGINT[]) AS "{column}"')
        elif value.dtype == object:
            parts.append(f'CAST("{column}" AS VARCHAR) AS "{column}"')
        elif value.dtype == bool or column in always:
            parts.append(f'"{column}"')
        else:
            parts.append(f'NULLIF(CAST("{column}" AS BIGINT), -1) AS "{column}"')
    connection.execute(
        f"COPY (SELECT {', '.join(parts)} FROM source) TO {folder.table_sql(name)}"
        " (FORMAT parquet, COMPRESSION zstd)"
    )
