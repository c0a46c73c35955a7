"""Run a program under aiocop, its events as JSON in a file: with_aiocop.py LOG APP [ARGS]."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import runpy
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiocop

if TYPE_CHECKING:
    from collections.abc import Coroutine

OVER_MS = 50
run = asyncio.run
log = Path(sys.argv[1]).open("w")  # noqa: SIM115 (open as long as the program runs)


def tell(event: Any) -> None:
    """Write one event down."""
    if event.exceeded_threshold:
        row = dataclasses.asdict(event)
        print(json.dumps({"now_ns": time.monotonic_ns(), **row}, default=str), file=log, flush=True)


async def watched(main: Coroutine[Any, Any, Any]) -> Any:
    """Begin to watch in the loop, as aiocop wants."""
    aiocop.detect_slow_tasks(threshold_ms=OVER_MS, on_slow_task=tell)
    aiocop.activate()
    return await main


aiocop.patch_audit_functions()
aiocop.start_blocking_io_detection(trace_depth=20)
asyncio.run = lambda main: run(watched(main))
sys.argv = sys.argv[2:]
sys.path.insert(0, str(Path(sys.argv[0]).parent))
runpy.run_path(sys.argv[0], run_name="__main__")
