"""Names inside a trace folder and its manifest.

While recording: `raw/` (drained records), `live/` (the agents' ring files), `manifest.json`
with state `recording`. Finished: a Parquet file per table, state `complete`, or `cut` if the
tracer died and the trace was recovered.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import stat
from typing import IO, TYPE_CHECKING, Any

from tracer.errors import TraceUnreadable
from tracer.system.identity import acting_as
from tracer.system.invocation import sudo_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FORMAT = 1
MANIFEST = "manifest.json"
RAW = "raw"
LIVE = "live"
KERNEL_RAW = "kernel.raw"
PROCESSES = "processes.jsonl"
LOSSES = "losses.jsonl"
SAMPLES = "samples.jsonl"
# version 2 has delta encodings, which suit times and row numbers
PARQUET = "(FORMAT parquet, COMPRESSION zstd, PARQUET_VERSION v2)"
_GIVE = "give the folder that `awaitscope run` wrote (awaitscope-*.trace)"


class TraceFolder:
    """A trace on disk; all paths are below `path`.

    The owner is the user whose program is traced: what root does in here it does as the owner.
    """

    def __init__(self, path: Path, owner: tuple[int, int] | None = None) -> None:
        """Name a trace folder; it need not exist yet.

        Args:
            path: the folder.
            owner: its uid and gid; None for those that an existing one has.

        """
        self.path = path
        self._owner = owner

    def new_table_sql(self, name: str) -> str:
        """Make way for a table's Parquet file, whatever is there; return its SQL text literal."""
        self.table(name).unlink(missing_ok=True)
        return self.table_sql(name)

    @contextlib.contextmanager
    def as_owner(self) -> Iterator[None]:
        """Touch files as the folder's owner may; see acting_as()."""
        if os.geteuid() != 0:
            yield
            return
        if self._owner is None:
            found = self.path.stat()
            self._owner = found.st_uid, found.st_gid
        with acting_as(*self._owner):
            yield

    @property
    def raw(self) -> Path:
        """Return the folder of drained records."""
        return self.path / RAW

    @property
    def live(self) -> Path:
        """Return the folder where agents put their rings."""
        return self.path / LIVE

    @property
    def _unfinished(self) -> Path:
        return self.path / (MANIFEST + ".new")

    def table(self, name: str) -> Path:
        """Return the Parquet file of a table."""
        return self.path / f"{name}.parquet"

    def table_sql(self, name: str) -> str:
        """Return the Parquet file of a table as an SQL text literal."""
        return "'" + str(self.table(name)).replace("'", "''") + "'"

    def create(self) -> None:
        """Make the folder and its parts, 0700."""
        with self.as_owner():
            for folder in (self.path, self.raw, self.live):
                folder.mkdir(mode=0o700)
                folder.chmod(0o700)

    def remove(self) -> None:
        """Remove the folder and all that is in it."""
        with self.as_owner():
            shutil.rmtree(self.path)

    def lock(self) -> int:
        """Return a descriptor that keeps the trace from being finished by somebody else.

        It ends with its holder; a command that the holder has started does not keep it.

        Raises:
            TraceUnreadable: another process records or finishes this trace.

        """
        with self.as_owner():
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

    def new_file(self, path: Path, flags: int) -> int:
        """Open a file below the folder for writing, 0600 and its owner's from the start.

        Whoever owns the trace can read it then, even if a tracer that runs as root dies. OSError
        for what somebody put there that is no plain file.
        """
        flags |= os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with self.as_owner():
            return _plain(os.open(path, flags, 0o600), path)

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        """Replace the manifest in one step."""
        text = json.dumps({"format": FORMAT, **manifest}, indent=1, default=str)
        with os.fdopen(self.new_file(self._unfinished, 0), "w") as file:
            file.write(text)
            file.truncate()
        with self.as_owner():
            self._unfinished.replace(self.path / MANIFEST)

    def reserve_manifest(self, size_bytes: int) -> None:
        """Keep room for the next manifest: it can be written even if the disk is full by then."""
        fd = self.new_file(self._unfinished, 0)
        try:
            os.posix_fallocate(fd, 0, size_bytes)
        finally:
            os.close(fd)

    def read_manifest(self) -> dict[str, Any]:
        """Return the manifest; TraceUnreadable if this is no trace of a version we know."""
        try:
            with self.as_owner(), reading(self.path / MANIFEST) as file:
                manifest = json.load(file)
        except FileNotFoundError as error:
            if is_trace(self.path):
                raise TraceUnreadable(
                    f"{self.path} is empty: its tracer died before the recording began",
                    "record it again with --force",
                ) from error
            raise TraceUnreadable(
                f"{self.path} is no awaitscope trace: it has no {MANIFEST}", _GIVE
            ) from error
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise TraceUnreadable(f"{self.path} is no awaitscope trace: {error}", _GIVE) from error
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


def reading(path: Path) -> IO[bytes]:
    """Open a plain file of a trace to read it; OSError for anything else, which might not end."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    return os.fdopen(_plain(os.open(path, flags), path), "rb")


def _plain(fd: int, path: Path) -> int:
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise OSError(errno.EINVAL, "is no plain file", str(path))


def is_trace(path: Path) -> bool:
    """Say whether a folder is a trace, or what a tracer left that died while arming."""
    names = {entry.name for entry in path.iterdir()} if path.is_dir() else set()
    return MANIFEST in names or (bool(names) and names <= {RAW, LIVE})


def newest_trace(folder: Path) -> Path:
    """Return the newest trace in a folder; TraceUnreadable if there is none."""
    traces = [p.parent for p in folder.glob(f"*/{MANIFEST}")]
    if not traces:
        raise TraceUnreadable(
            "there is no trace in this folder", f"record one: {sudo_line('run', '--', 'CMD')}"
        )
    return max(traces, key=lambda p: (p / MANIFEST).stat().st_mtime_ns)
