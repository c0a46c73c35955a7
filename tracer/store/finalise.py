"""Turn the raw records of a recording into one Parquet file per event table.

Also recovers a trace whose tracer died: it reads whatever was drained, and the agents' rings,
which outlive everybody.
"""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np

from tracer.events.header import load as load_header
from tracer.events.tables import AGENT_TABLES, KERNEL_TABLES, stored_columns
from tracer.store import decode
from tracer.store.agents import read_agents
from tracer.store.layout import KERNEL_RAW, LOSSES, PROCESSES, TraceFolder

if TYPE_CHECKING:
    from pathlib import Path


def finalise(folder: TraceFolder) -> dict[str, Any]:
    """Write the event tables, complete the manifest, drop the raw records; return the manifest."""
    manifest = folder.read_manifest()
    if manifest["state"] in ("complete", "cut"):
        return manifest
    cut = manifest["state"] == "recording"
    kernel = decode.kernel_records(folder.raw / KERNEL_RAW)
    connection = duckdb.connect(config={"threads": 2, "preserve_insertion_order": True})
    for name in KERNEL_TABLES:
        _write_table(connection, folder, name, _kernel_columns(name, kernel))
    agents = read_agents(folder, kernel.get("agent_thread"))
    for name in AGENT_TABLES:
        _write_table(connection, folder, name, agents.columns(name))
    written = {name: len(rows) for name, rows in kernel.items()} | agents.written
    _write_strings(connection, folder, agents.strings)
    connection.close()
    losses = _json_lines(folder.raw / LOSSES)
    manifest.update(
        state="cut" if cut else "complete",
        processes=_json_lines(folder.raw / PROCESSES),
        agents=agents.infos,
        events=_events(written, losses, agents.lost),
        loss_samples=len(losses),
    )
    if cut:
        ends = [int(v["ts_ns"].max()) for v in kernel.values() if len(v)]
        manifest["end_ns"] = max(ends, default=manifest["start_ns"])
    folder.write_manifest(manifest)
    shutil.rmtree(folder.raw, ignore_errors=True)
    shutil.rmtree(folder.live, ignore_errors=True)
    return manifest


def _kernel_columns(name: str, kernel: dict[str, Any]) -> decode.Columns:
    rows = kernel.get(name)
    if rows is None:
        rows = np.zeros(0, load_header().records[name].dtype)
    columns = decode.columns_of(name, rows)
    if name == "epoll_wait":
        lists = decode.epoll_fds(rows, kernel.get("epoll_ready"))
        columns["fds"] = np.array([json.dumps(fds) for fds in lists], dtype=object)
    if name == "socket":
        local, remote = {}, {}
        for row in kernel.get("socket_addr6", ()):
            local[int(row["sock"])] = decode.address6(bytes(row["laddr"]))
            remote[int(row["sock"])] = decode.address6(bytes(row["raddr"]))
        ids = columns["sock"].tolist()
        columns["laddr6"] = np.array([local.get(s, "") for s in ids], dtype=object)
        columns["raddr6"] = np.array([remote.get(s, "") for s in ids], dtype=object)
    return columns


def _write_table(
    connection: duckdb.DuckDBPyConnection, folder: TraceFolder, name: str, columns: decode.Columns
) -> None:
    """Write one event table with exactly its catalogued columns and types."""
    source = columns  # noqa: F841 (DuckDB reads it by its name)
    wanted = stored_columns(name)
    select = ", ".join(
        f'CAST(CAST("{c.name}" AS JSON) AS BIGINT[]) AS "{c.name}"'
        if c.type == "BIGINT[]"
        else f'CAST("{c.name}" AS {c.type}) AS "{c.name}"'
        for c in wanted
    )
    connection.execute(
        f"COPY (SELECT {select} FROM source) TO {folder.table_sql(name)}"
        " (FORMAT parquet, COMPRESSION zstd, PARQUET_VERSION v2)"
    )


def _write_strings(
    connection: duckdb.DuckDBPyConnection, folder: TraceFolder, strings: list[tuple[int, int, str]]
) -> None:
    connection.execute("CREATE TABLE string (agent BIGINT, id BIGINT, text VARCHAR)")
    if strings:
        connection.executemany("INSERT INTO string VALUES (?, ?, ?)", strings)
    connection.execute(
        f"COPY string TO {folder.table_sql('string')} (FORMAT parquet, COMPRESSION zstd)"
    )


def _json_lines(path: Path) -> list[dict[str, Any]]:
    """Read a JSON-lines file; a last line that was cut off is dropped."""
    entries = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return entries


def _events(
    written: dict[str, int], losses: list[dict[str, Any]], agent_lost: dict[str, int]
) -> dict[str, dict[str, int]]:
    last = losses[-1]["lost"] if losses else []
    events = {}
    for name, record in load_header().records.items():
        if record.kind is None:
            continue
        lost = sum(last[record.kind]) if record.kind < len(last) else agent_lost.get(name, 0)
        events[name] = {"written": written.get(name, 0), "lost": lost}
    return events
