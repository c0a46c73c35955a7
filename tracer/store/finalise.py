"""Turn the raw records of a recording into one Parquet file per event table.

Also recovers a trace whose tracer died: it reads whatever was drained, and the agents' rings,
which outlive everybody.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np

from tracer.events.header import load as load_header
from tracer.events.tables import AGENT_TABLES, KERNEL_TABLES, stored_columns
from tracer.store import decode
from tracer.store.agents import read_agents
from tracer.store.layout import KERNEL_RAW, LOSSES, PARQUET, PROCESSES, SAMPLES, TraceFolder
from tracer.store.losses import Losses, json_lines, read_losses
from tracer.store.samples import SAMPLE_COLUMNS, sample_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

# who reads the agents' records asks for these
_NEEDED_LATER = ("thread", "agent_thread")


def finalise(folder: TraceFolder) -> dict[str, Any]:
    """Write the event tables, complete the manifest, drop the raw records; return the manifest."""
    manifest = folder.read_manifest()
    if manifest["state"] in ("complete", "cut"):
        _drop_raw(folder)  # its tracer may have died before it came to that
        return manifest
    cut = manifest["state"] == "recording"
    kernel = decode.kernel_records(folder.raw / KERNEL_RAW)
    losses = read_losses(folder.raw / LOSSES)
    if cut:
        ends = [decode.written_ns(rows) for rows in kernel.values()]
        # one that could write no more says up to when it had written all
        manifest.setdefault("end_ns", max(ends, default=manifest["start_ns"]))
        _place_untold_losses(kernel, losses, manifest)
    _drop_late(kernel, manifest["end_ns"])
    connection = duckdb.connect(config={"threads": 2, "preserve_insertion_order": True})
    written = {name: len(rows) for name, rows in kernel.items()}
    for name in KERNEL_TABLES:
        write_kernel_table(connection, folder, name, kernel)
    agents = read_agents(folder, kernel, losses, manifest["end_ns"], cut=cut)
    for name in AGENT_TABLES:
        _write_table(connection, folder, name, agents.columns(name))
    written |= agents.written
    _write_rows(
        connection, folder, "string", "agent BIGINT, id BIGINT, text VARCHAR", agents.strings
    )
    _write_losses(connection, folder, losses.columns(agents.rings))
    _write_rows(
        connection, folder, "sample", SAMPLE_COLUMNS, sample_rows(folder.raw / SAMPLES, agents)
    )
    connection.close()
    manifest.update(
        state="cut" if cut else "complete",
        processes=json_lines(folder.raw / PROCESSES),
        agents=agents.infos,
        events=_events(written, losses.by_kind() | agents.lost),
    )
    folder.write_manifest(manifest)
    _drop_raw(folder)
    return manifest


def _drop_raw(folder: TraceFolder) -> None:
    shutil.rmtree(folder.raw, ignore_errors=True)
    shutil.rmtree(folder.live, ignore_errors=True)


def _drop_late(kernel: dict[str, Any], end_ns: int) -> None:
    """Drop what came after the end, while the probes were taken off: it is not all there."""
    for name, rows in kernel.items():
        late = rows["ts_ns"] > end_ns
        if name != "gap" and late.any():
            kernel[name] = rows[~late]


def _place_untold_losses(kernel: dict[str, Any], losses: Losses, manifest: dict[str, Any]) -> None:
    """Add gaps for the losses that a tracer knew of when it died, but no record did."""
    gap = load_header().records["gap"]
    known = kernel.get("gap", np.zeros(0, gap.dtype))
    told = np.bincount(known["cpu"], weights=known["lost_count"]).astype(np.int64).tolist()
    untold = losses.untold(told, manifest["start_ns"])
    rows = np.zeros(len(untold), gap.dtype)
    rows["kind"] = gap.kind
    for row, values in zip(rows, untold, strict=True):
        for name, value in values.items():
            row[name] = value
    kernel["gap"] = np.concatenate([known, rows])


def write_kernel_table(
    connection: duckdb.DuckDBPyConnection, folder: TraceFolder, name: str, kernel: dict[str, Any]
) -> None:
    """Write a table of the kernel's records; those that no other table needs are freed."""
    nothing = np.zeros(0, load_header().records[name].dtype)
    rows = kernel.get(name, nothing) if name in _NEEDED_LATER else kernel.pop(name, nothing)
    rows = decode.sorted_by_time(rows)
    columns = decode.columns_of(name, rows)
    further = None
    if name == "epoll_wait":
        columns |= {"n": rows["n"]} | {f"fd{k}": rows["fds"][:, k] for k in range(4)}
        if "epoll_ready" in kernel:
            further = decode.further_fds(kernel.pop("epoll_ready"))
    if name == "socket":
        local, remote = {}, {}
        for row in kernel.get("socket_addr6", ()):
            local[int(row["sock"])] = decode.address6(bytes(row["laddr"]))
            remote[int(row["sock"])] = decode.address6(bytes(row["raddr"]))
        ids = columns["sock"].tolist()
        columns["laddr6"] = np.array([local.get(s, "") for s in ids], dtype=object)
        columns["raddr6"] = np.array([remote.get(s, "") for s in ids], dtype=object)
    _write_table(connection, folder, name, columns, further)


def _write_table(
    connection: duckdb.DuckDBPyConnection,
    folder: TraceFolder,
    name: str,
    columns: decode.Columns,
    further: decode.Columns | None = None,
) -> None:
    """Write one event table with exactly its catalogued columns and types.

    Args:
        connection: to the database that writes.
        folder: the trace.
        name: of the table.
        columns: sorted; of epoll_wait also its record's `n` and descriptors, fd0..fd3.
        further: descriptors of epoll_waits that have more, see decode.further_fds.

    """
    source, more = columns, further  # noqa: F841 (DuckDB reads them by their names)
    fds = "list_slice([fd0, fd1, fd2, fd3], 1, n)"
    rest = ""
    if further is not None:
        fds = f"list_concat({fds}, coalesce(further.fds, []))"
        rest = (
            " LEFT JOIN (SELECT tid, ts_ns, list(fd ORDER BY place) AS fds FROM more GROUP BY ALL)"
            " AS further USING (tid, ts_ns) ORDER BY id"
        )
    select = ", ".join(
        f"CAST({fds if c.type == 'BIGINT[]' else chr(34) + c.name + chr(34)} AS {c.type})"
        f' AS "{c.name}"'
        for c in stored_columns(name)
    )
    connection.execute(
        f"COPY (SELECT {select} FROM source{rest}) TO {folder.new_table_sql(name)} {PARQUET}"
    )


def _write_rows(
    connection: duckdb.DuckDBPyConnection,
    folder: TraceFolder,
    name: str,
    columns: str,
    rows: Sequence[tuple[Any, ...]],
) -> None:
    """Write a table of texts."""
    connection.execute(f"CREATE TABLE {name} ({columns})")
    if rows:
        marks = ", ".join("?" for _ in rows[0])
        connection.executemany(f"INSERT INTO {name} VALUES ({marks})", rows)
    connection.execute(f"COPY {name} TO {folder.new_table_sql(name)} {PARQUET}")


def _write_losses(
    connection: duckdb.DuckDBPyConnection, folder: TraceFolder, columns: decode.Columns
) -> None:
    source = columns  # noqa: F841 (DuckDB reads it by its name)
    select = ", ".join(
        f'"{name}"' if name == "event" else f'NULLIF("{name}", -1) AS "{name}"' for name in columns
    )
    connection.execute(
        f"COPY (SELECT {select} FROM source) TO {folder.new_table_sql('loss')} {PARQUET}"
    )


def _events(written: dict[str, int], lost: dict[str, int]) -> dict[str, dict[str, int]]:
    return {
        name: {"written": written.get(name, 0), "lost": lost.get(name, 0)}
        for name, record in load_header().records.items()
        if record.kind is not None
    }
