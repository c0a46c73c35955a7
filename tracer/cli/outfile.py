"""Write a report to a file that appears when it is whole, or to standard output."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING

from tracer.errors import Usage

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def output_file(path: Path, *, force: bool) -> Iterator[IO[bytes]]:
    """Open `path` for writing; `-` is standard output.

    What is written goes to a new file beside it, which takes its name at the end: a reader never
    sees half a report, and a link at that name is replaced, not followed.

    Raises:
        Usage: it exists and not `force`, or its folder cannot be written.

    """
    if str(path) == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    if path.is_dir():
        raise Usage(f"{path} is a folder", "name a file with -o")
    if os.path.lexists(path) and not force:
        raise Usage(f"{path} exists", "choose another name with -o, or --force to replace it")
    temporary: str | None = None
    try:
        fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(fd, "wb") as out:
            yield out
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(path)
        temporary = None
    except OSError as error:
        raise Usage(f"{path} cannot be written: {error.strerror}", "choose another -o") from error
    finally:
        if temporary is not None:
            Path(temporary).unlink()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
