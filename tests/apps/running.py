"""On which event loop an app runs: asyncio's own, on which selector, or uvloop's (`--loop`)."""

from __future__ import annotations

import asyncio
import selectors
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Coroutine

SELECTORS = {"poll": selectors.PollSelector, "select": selectors.SelectSelector}
LOOPS = ("asyncio", "uvloop", *SELECTORS)


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
    if loop in SELECTORS:
        return asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(SELECTORS[loop]())).run
    return asyncio.run
