"""Names inside a trace folder and its manifest.

While recording: `raw/` (drained records), `live/` (the agents' ring files), `manifest.json`
with state `recording`. Finished: a Parquet file per table, state `complete`, or `cut` if the
tracer died and the trace was recovered.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from pathlib import Path
from typing import Any

from tracer.errors import TraceUnreadable

FORMAT = 1
MANIFEST = "manifest.json"
RAW = "raw"
LIVE = "live"
KERNEL_RAW = "kernel.raw"
PROCESSES = "processes.jsonl"
LOSSES = "losses.jsonl"


class TraceFolder:
    """A trace on disk; all paths are below `path`."""

    def __init__(self, path: Path) -> None:
        """Name a trace folder; it need not exist yet."""
        self.path = path

    @property
    def raw(self) -> Path:
        """Return the folder of drained records."""
        return self.path / RAW

    @property
    def live(self) -> Path:
        """Return the folder where agents put their rings."""
        return self.path / LIVE

    def table(self, name: str) -> Path:
        """Return the Parquet file of a table."""
        return self.path / f"{name}.parquet"

    def table_sql(self, name: str) -> str:
        """Return the Parquet file of a table as an SQL text literal."""
        return "'" + str(self.table(name)).replace("'", "''") + "'"

    def create(self, uid: int, gid: int) -> None:
        """Make the folder and its parts, 0700, owned by the given user."""
        for folder in (self.path, self.raw, self.live):
            folder.mkdir(mode=0o700)
            folder.chmod(0o700)
            os.chown(folder, uid, gid)

    def lock(self) -> int:
        """Return a descriptor that keeps the trace from being finished by somebody else.

        It ends with its holder; a command that the holder has started does not keep it.

        Raises:
            TraceUnreadable: another process records or finishes this trace.

        """
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # file systems without locks have one user
            with contextlib.suppress(OSError):
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    raise TraceUnreadable(
                        f"{self.path} is still being recorded", "wait until its command has ended"
                    ) from error
        except TraceUnreadable:
            os.close(fd)
            raise
        return fd

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        """Replace the manifest in one step."""
        text = json.dumps({"format": FORMAT, **manifest}, indent=1, default=str)
        partial = self.path / (MANIFEST + ".new")
        fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(fd, "w") as file:
            file.write(text)
        partial.replace(self.path / MANIFEST)

    def read_manifest(self) -> dict[str, Any]:
        """Return the manifest; TraceUnreadable if this is no trace of a version we know."""
        try:
            manifest = json.loads((self.path / MANIFEST).read_text())
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise TraceUnreadable(
                f"{self.path} is no awaitscope trace: {error}",
                "give the folder that `awaitscope run` wrote (awaitscope-*.trace)",
            ) from error
        if not isinstance(manifest, dict) or not isinstance(manifest.get("format"), int):
            raise TraceUnreadable(f"{self.path}: its manifest has no format number", None)
        if manifest["format"] > FORMAT:
            raise TraceUnreadable(
                f"{self.path} was written by a newer awaitscope (format {manifest['format']})",
                "upgrade awaitscope",
            )
        if not isinstance(manifest.get("state"), str):
            raise TraceUnreadable(f"{self.path}: its manifest has no state", None)
        return manifest

    def chown(self, uid: int, gid: int) -> None:
        """Give every file to the user, 0600 (folders 0700); follows no links."""
        for folder, names, files in os.walk(self.path):
            for name in [*names, *files]:
                os.chown(Path(folder) / name, uid, gid, follow_symlinks=False)
            for name in files:
                file = Path(folder) / name
                if not file.is_symlink():
                    file.chmod(0o600)
        os.chown(self.path, uid, gid)


def is_trace(path: Path) -> bool:
    """Say whether a folder is a trace, or what a tracer left that died while arming."""
    names = {entry.name for entry in path.iterdir()} if path.is_dir() else set()
    return MANIFEST in names or (bool(names) and names <= {RAW, LIVE})


def newest_trace(folder: Path) -> Path:
    """Return the newest trace in a folder; TraceUnreadable if there is none."""
    traces = [p.parent for p in folder.glob(f"*/{MANIFEST}")]
    if not traces:
        raise TraceUnreadable(
            "there is no trace in this folder", "record one: sudo awaitscope run -- CMD"
        )
    return max(traces, key=lambda p: (p / MANIFEST).stat().st_mtime_ns)
