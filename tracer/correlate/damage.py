"""One clear error for whatever a damaged trace leads to."""

from __future__ import annotations

import contextlib
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from tracer.errors import AwaitscopeError, TraceUnreadable

if TYPE_CHECKING:
    from collections.abc import Iterator

_PACKAGE = str(Path(__file__).parents[1])


def first_line(error: BaseException | None) -> str:
    """Return the first line of what an error says, its name if it says nothing."""
    return next(iter(str(error).splitlines()), type(error).__name__)


@contextlib.contextmanager
def one_error(what: str, *others: type[Exception]) -> Iterator[None]:
    """Turn what the work on a trace stumbles over into TraceUnreadable, and name the place.

    Files are checked where they are read, values are not: in a damaged trace each may be anything.

    Args:
        what: names the trace.
        others: errors that are no stumbling, as those in awaitscope's own words and the system's.

    """
    try:
        yield
    except Exception as error:
        if isinstance(error, (AwaitscopeError, OSError, *others)):
            raise
        ours = [
            f"{Path(frame.filename).name}:{frame.lineno}"
            for frame in traceback.extract_tb(error.__traceback__)
            if frame.filename.startswith(_PACKAGE)
        ]
        raise TraceUnreadable(
            f"{what} is damaged, or awaitscope has a fault:"
            f" {type(error).__name__}: {first_line(error)} ({ours[-1]})",
            "record it again; if that does not help, report this line",
        ) from error
