"""Open a trace: finish it if its recording was cut, and offer its tables to SQL."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import duckdb

from tracer.correlate.build import TABLES, correlate
from tracer.correlate.damage import first_line, one_error
from tracer.correlate.words import DERIVED
from tracer.errors import TraceUnreadable, Usage
from tracer.events.tables import AGENT_TABLES, KERNEL_TABLES
from tracer.store.finalise import finalise
from tracer.store.layout import TraceFolder, newest_trace

if TYPE_CHECKING:
    from pathlib import Path

ALL_TABLES = (*TABLES, *KERNEL_TABLES, *AGENT_TABLES, "string", "loss", "sample")
Row = dict[str, Any]


# what DuckDB raises for a damaged file and for no wrong SQL
_DAMAGE = (duckdb.IOException, duckdb.InternalException, duckdb.FatalException)


class Trace:
    """A finished trace with one SQL view per table."""

    def __init__(self, folder: TraceFolder, manifest: dict[str, Any]) -> None:
        """Connect; nothing is read yet."""
        self.folder = folder
        self.manifest = manifest
        self.connection = duckdb.connect(config={"threads": 2})
        for name in ALL_TABLES:
            columns = ", ".join(["*", *DERIVED.get(name, ())])
            source = f"read_parquet({folder.table_sql(name)})"
            view = f'CREATE VIEW "{name}" AS SELECT {columns} FROM {source}'
            if folder.table(name).exists() and not folder.table(name).is_file():
                raise self._unreadable(f"the table {name} is no plain file")
            try:
                self.connection.execute(view)
            except duckdb.Error as error:
                raise self._unreadable(f"the table {name}: {first_line(error)}") from error

    def rows(self, sql: str, *parameters: object, **named: object) -> list[Row]:
        """Return a query's result as dictionaries; parameters are `?` or `$name`."""
        try:
            cursor = self.connection.execute(sql, named or list(parameters))
            names = [d[0] for d in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        except duckdb.Error as error:
            raise self._unreadable(first_line(error)) from error

    def query(self, sql: str) -> list[Row]:
        """Return the rows of somebody's SQL; Usage if that is wrong."""
        try:
            return self.rows(sql)
        except TraceUnreadable as error:
            cause = error.__cause__
            if "arquet" in str(cause) or isinstance(cause, _DAMAGE):
                raise
            raise Usage(
                f"the query failed: {first_line(cause)}", "see `awaitscope schema`"
            ) from cause

    def _unreadable(self, why: str) -> TraceUnreadable:
        return TraceUnreadable(
            f"{self.folder.path} cannot be read: {why}", "record it again, or copy the whole folder"
        )

    def one(self, table: str, row_id: int | None) -> Row | None:
        """Return an event by its id, None for no id."""
        if row_id is None or row_id < 0:
            return None
        found = self.rows(f'SELECT * FROM "{table}" WHERE id = ?', row_id)
        return found[0] if found else None


def open_trace(path: Path | None, here: Path) -> Trace:
    """Open a trace by its folder, or the newest in `here`.

    A trace whose tracer died is finished first: it ends at the last record that was drained.
    """
    folder = TraceFolder(path if path is not None else newest_trace(here))
    manifest = complete(folder)
    return Trace(folder, manifest)


def complete(folder: TraceFolder) -> dict[str, Any]:
    """Finalise and correlate what is not yet; return the manifest."""
    manifest = folder.read_manifest()
    if manifest.get("correlated"):
        return manifest
    mask = os.umask(0o077)
    try:
        with one_error(str(folder.path)), folder.as_owner():
            return _complete(folder)
    finally:
        os.umask(mask)


def _complete(folder: TraceFolder) -> dict[str, Any]:
    try:
        lock = folder.lock()
        try:
            manifest = finalise(folder)
            correlate(folder, manifest)
            manifest["correlated"] = True
            folder.write_manifest(manifest)
        finally:
            os.close(lock)
    except (OSError, duckdb.Error) as error:
        raise TraceUnreadable(
            f"{folder.path} was not finished and cannot be now: {first_line(error)}",
            "make room on its disk and the folder writable, or copy it; then call this again",
        ) from error
    return manifest
