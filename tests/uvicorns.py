"""Start the FastAPI app on workers of uvicorn, load it with wrk, and end it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

APPS = Path(__file__).parent / "apps"
WORKERS = 2
PER_SECOND = re.compile(r"^Requests/sec:\s+([0-9.]+)", re.MULTILINE)
FAILED = re.compile(r"^.*(?:Non-2xx|Socket errors).*", re.MULTILINE)


def command(port: int, loop: str, workers: int = WORKERS) -> list[str]:
    """Return what a user types to start the app."""
    uvicorn = str(Path(sys.executable).with_name("uvicorn"))
    options = ["--workers", str(workers), "--port", str(port), "--loop", loop]
    return [uvicorn, "fastapi_pg:app", *options, "--log-level", "warning"]


@contextmanager
def serving(
    before: list[str],
    port: int,
    loop: str,
    environment: dict[str, str],
    workers: int = WORKERS,
) -> Iterator[subprocess.Popen[str]]:
    """Run the app, behind the command `before`, while all workers answer; then end it.

    After it, returncode is that of uvicorn, of its supervisor or its only worker, and stderr was
    read to its end.
    """
    env = {**os.environ, "PYTHONPATH": str(APPS), **environment}
    with subprocess.Popen(
        [*before, *command(port, loop, workers)], env=env, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            wait_for_workers(port, workers)
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=100)
            if process.returncode not in (0, -signal.SIGTERM, 128 + signal.SIGTERM):
                raise RuntimeError(f"ended with {process.returncode}: {err[-2000:]}")


def wait_for_workers(port: int, workers: int = WORKERS, seconds: float = 60) -> None:
    """Ask until each worker has answered; the paths are beyond those of serials.lua."""
    seen: set[int] = set()
    deadline = time.monotonic() + seconds
    serial = 50_000
    while len(seen) < workers:
        if time.monotonic() > deadline:
            raise TimeoutError(f"answered: {seen}")
        serial += 1
        with suppress(OSError):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/rows/{serial}") as answer:
                seen.add(json.load(answer)["worker"])
            continue
        time.sleep(0.05)


def load(port: int, seconds: int, *options: str, path: str = "") -> float:
    """Load the app with wrk and return the answers a second; none may have failed."""
    url = f"http://127.0.0.1:{port}{path}"
    wrk = ["wrk", "--threads", "2", "--connections", "8", "--duration", f"{seconds}s"]
    done = subprocess.run([*wrk, *options, url], capture_output=True, text=True, check=True)
    failed = FAILED.search(done.stdout)
    if failed:
        raise RuntimeError(failed[0])
    found = PER_SECOND.search(done.stdout)
    assert found, done.stdout
    return float(found[1])
