"""The awaitscope command, killed by SIGKILL at a moment that the first argument names.

`MODULE:NAME:WHEN:N`: at the N-th call of a function, WHEN before it, after it, or `torn`: after
it, with the newest file of the trace cut in half.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

from tracer.cli.main import main


def die() -> None:
    """End at once, as `kill -9` does."""
    os.kill(os.getpid(), signal.SIGKILL)


def tear(folder: Path) -> None:
    """Cut the newest table in half, as a death in the middle of writing it would."""
    newest = max(folder.glob("*.parquet"), key=lambda path: path.stat().st_mtime_ns)
    os.truncate(newest, newest.stat().st_size // 2)


def arm(moment: str) -> None:
    """Put death into a function."""
    module, name, when, count = moment.split(":")
    importlib.import_module("tracer.capture.session")  # what it took from others stays whole
    owner: Any = importlib.import_module(module)
    *path, last = name.split(".")
    for part in path:
        owner = getattr(owner, part)
    original = getattr(owner, last)
    left = int(count)

    def mortal(*args: Any, **kwargs: Any) -> Any:
        nonlocal left
        left -= 1
        last_one = left == 0  # other threads go on counting meanwhile
        if last_one and when == "before":
            die()
        result = original(*args, **kwargs)
        if last_one:
            if when == "torn":
                tear(Path("t"))
            die()
        return result

    setattr(owner, last, mortal)


if __name__ == "__main__":
    arm(sys.argv[1])
    main(sys.argv[3:])  # behind the command's own name
