"""Record the golden trace: `sudo .ci/owned .venv/bin/python tests/golden/record.py`.

Needed when the records change; then `pytest tests/golden --update-golden`, and read the diff. What
is kept are the event tables: every test correlates them anew. Times are moved so that the trace
starts at 1 s; nothing tells of the machine it was recorded on.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import duckdb

sys.path.append(str(Path(__file__).resolve().parents[1]))
from tracing import APPS, Tracings, load_lab

from tracer.correlate.build import TABLES
from tracer.store.layout import MANIFEST, PARQUET

DATA = APPS.parent / "data" / "trace"
START_NS = 1_000_000_000
# every other `_ns` is a duration; 0 is none
MOMENTS = {"ts_ns", "start_ns", "end_ns", "seen_ns", "softirq_ns", "irq_ns", "poll_ns", "since_ns"}
APP = "/app/golden.py"
PLACES = {str(APPS): "/app", sys.prefix: "/app/.venv"}
HOST = {"kernel": "6.12.0", "machine": "x86_64", "cpus": 2, "clock": "CLOCK_MONOTONIC"}


def record(folder: Path) -> Path:
    """Trace the app and its server; return the trace."""
    with load_lab().private_postgres("lo") as lab:
        return Tracings(folder)("golden.py", lab.dsn, also=(lab.postmaster_pid,)).folder


def copy_tables(source: Path, shift_ns: int) -> None:
    """Copy the event tables, times moved and paths replaced."""
    connection = duckdb.connect()
    for path in sorted(source.glob("*.parquet")):
        if path.stem in TABLES:
            continue
        columns = connection.execute(f"DESCRIBE FROM '{path}'").fetchall()
        chosen = ", ".join(_column(path.stem, name, kind, shift_ns) for name, kind, *_ in columns)
        target = DATA / path.name
        connection.execute(f"COPY (SELECT {chosen} FROM '{path}') TO '{target}' {PARQUET}")


def _column(table: str, name: str, kind: str, shift_ns: int) -> str:
    quoted = f'"{name}"'
    # in off_cpu how long the thread slept, elsewhere when the run was made ready
    if name in MOMENTS or (name == "wake_ns" and table != "off_cpu"):
        return f"CASE WHEN {quoted} > 0 THEN {quoted} - {shift_ns} ELSE {quoted} END AS {quoted}"
    if kind == "VARCHAR":
        return f"{_replaced(quoted)} AS {quoted}"
    if kind == "VARCHAR[]":
        return f"[{_replaced('x')} FOR x IN {quoted}] AS {quoted}"
    return quoted


def _replaced(value: str) -> str:
    for old, new in PLACES.items():
        value = f"replace({value}, '{old}', '{new}')"
    return value


def neutral(manifest: dict[str, Any], shift_ns: int) -> dict[str, Any]:
    """Return the manifest without the machine and the user."""
    moved = _moved(manifest, shift_ns)
    del moved["correlated"]
    moved |= {
        "command": ["python3", APP],
        "cwd": "/app",
        "uid": 1000,
        "host": {**manifest["host"], **HOST, "monotonic_ns": START_NS, "realtime_ns": START_NS},
        "devices": [device for device in manifest["devices"] if device["name"] == "lo"],
    }
    for process in moved["processes"]:
        if process["tgid"] == manifest["root_tgid"] and "argv" in process:
            process |= {"argv": ["python3", APP], "uid": 1000}
        elif "argv" in process:
            process["argv"] = process["argv"][:1]
    return moved


def _moved(value: Any, shift_ns: int) -> Any:
    if isinstance(value, list):
        return [_moved(one, shift_ns) for one in value]
    if isinstance(value, dict):
        return {
            key: one - shift_ns if key in MOMENTS and one else _moved(one, shift_ns)
            for key, one in value.items()
        }
    return value


def main() -> None:
    """Replace tests/data/trace."""
    with tempfile.TemporaryDirectory() as folder:
        source = record(Path(folder))
        manifest = json.loads((source / MANIFEST).read_text())
        shift_ns = manifest["start_ns"] - START_NS
        shutil.rmtree(DATA, ignore_errors=True)
        DATA.mkdir(parents=True)
        copy_tables(source, shift_ns)
    text = json.dumps(neutral(manifest, shift_ns), indent=1)
    (DATA / MANIFEST).write_text(text + "\n")


if __name__ == "__main__":
    main()
