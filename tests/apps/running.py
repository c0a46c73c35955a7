"""On which event loop an app runs: asyncio's own or uvloop's, by its `--loop` option."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Coroutine

LOOPS = ("asyncio", "uvloop")


def add_option(parser: argparse.ArgumentParser) -> None:
    """Add `--loop`."""
    parser.add_argument("--loop", choices=LOOPS, default=LOOPS[0])


def runner(loop: str) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Return what runs a coroutine on such a loop, a new one each time."""
    if loop == "uvloop":
        import uvloop

        if hasattr(uvloop, "run"):
            return uvloop.run
        uvloop.install()  # before 0.18
    return asyncio.run
