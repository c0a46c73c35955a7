"""What the tests take from Debian's archive, and where they keep it."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class BuildFailed(Exception):
    """Something could not be built; the text has the last lines of the command that failed."""


def run(*command: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """Run a command and return its output; BuildFailed with the last lines if it fails."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise BuildFailed(f"{command[0]} failed with {done.returncode}:\n{last}")
    return done.stdout


def key_of(*parts: str | bytes) -> str:
    """Return 16 hex digits that stand for all that goes into something."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part if isinstance(part, bytes) else part.encode())
        digest.update(b"\0")
    return digest.hexdigest()[:16]


@contextmanager
def building(base: Path, name: str) -> Iterator[tuple[Path, Path | None]]:
    """Give the path of a cached folder, and a folder to fill if it is not there yet.

    Args:
        base: where such folders are kept.
        name: the folder's; what follows its last `-` stands for what it is made of.

    """
    base.mkdir(parents=True, exist_ok=True)
    with (base / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        final = base / name
        if final.exists():
            yield final, None
            return
        # what an interrupted build left, and what was made from an older recipe
        for old in (*base.glob(".new-*"), *base.glob(f"{name.rpartition('-')[0]}-*")):
            shutil.rmtree(old)
        fresh = Path(tempfile.mkdtemp(prefix=".new-", dir=base))
        try:
            yield final, fresh
            fresh.rename(final)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)


@cache
def mirror() -> str:
    """Return the Debian archive that this machine's apt uses."""
    lines = run(
        *("apt-get", "indextargets", "--format", "$(REPO_URI) $(COMPONENT) $(ORIGIN)"),
        "Identifier: Packages",
    ).splitlines()
    for line in lines:
        uri, component, origin = line.split(maxsplit=2)
        if (component, origin) == ("main", "Debian") and uri.rstrip("/").endswith("/debian"):
            return uri
    raise BuildFailed("apt on this machine knows no Debian archive; run apt-get update")
