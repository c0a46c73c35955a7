"""A correlated table, written in parts: only one of them is in memory."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np

from tracer.store.layout import PARQUET

if TYPE_CHECKING:
    from pathlib import Path

    from tracer.store.layout import TraceFolder

# columns of which -1 is a value; in all others it means unknown, NULL
_ALWAYS = {"by", "sock", "reasons", "sent_bytes", "recv_bytes"}


class Parts:
    """Writes a table's parts beside it, and puts them together at the end."""

    def __init__(self, folder: TraceFolder, name: str) -> None:
        """Begin a table."""
        self._folder, self._name = folder, name
        # one thread each: with more it would buffer what it cannot write in order yet
        self._connection = duckdb.connect(config={"threads": 1})
        self._path = folder.path / f"{name}.parts"
        shutil.rmtree(self._path, ignore_errors=True)
        self._path.mkdir(mode=0o700)
        self._count = 0

    def add(self, columns: dict[str, Any]) -> None:
        """Write the next rows; `fds` is given as pairs, the number of a row and a descriptor."""
        source = {name: value for name, value in columns.items() if name != "fds"}
        rest = ""
        if "fds" in columns:
            row, fd = columns["fds"]
            pairs = {"row": row, "fd": fd}  # noqa: F841 (DuckDB reads it by its name)
            source["row"] = np.arange(len(columns["await_id"]))
            rest = (
                " LEFT JOIN (SELECT row, list(fd ORDER BY fd) AS fds FROM pairs GROUP BY row)"
                " USING (row) ORDER BY row"
            )
        select = ", ".join(_selected(name, value) for name, value in columns.items())
        self._connection.execute(
            f"COPY (SELECT {select} FROM source{rest}) TO {_literal(self._part(self._count))}"
            " (FORMAT parquet, COMPRESSION uncompressed, PARQUET_VERSION v2)"
        )
        self._count += 1

    def _part(self, number: int) -> Path:
        return self._path / f"{number}.parquet"

    def finish(self) -> None:
        """Write the table."""
        parts = ", ".join(_literal(self._part(number)) for number in range(self._count))
        self._connection.execute(
            f"COPY (SELECT * FROM read_parquet([{parts}]))"
            f" TO {self._folder.new_table_sql(self._name)} {PARQUET}"
        )
        self._connection.close()
        shutil.rmtree(self._path)


def _literal(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"


def _selected(name: str, value: Any) -> str:  # noqa: ANN401
    if name == "fds":
        return "coalesce(fds, []) AS fds"
    if value.dtype == object:
        return f'CAST("{name}" AS VARCHAR) AS "{name}"'
    if value.dtype == bool:
        return f'"{name}"'
    if name in _ALWAYS:
        return f'CAST("{name}" AS BIGINT) AS "{name}"'
    return f'NULLIF(CAST("{name}" AS BIGINT), -1) AS "{name}"'
