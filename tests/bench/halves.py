"""One half of `awaitscope run` at a time: record without correlating, or finish and measure it.

    sudo .venv/bin/python tests/bench/halves.py record OUT -- python app.py
    .venv/bin/python tests/bench/halves.py finish OUT

`finish` prints one line of JSON. Each half is a process of its own: its peak memory is its alone.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path


def record(folder: Path, command: list[str]) -> None:
    """Leave a recording behind that is not finished yet."""
    from tracer.capture.session import Options
    from tracer.capture.session import record as run_session

    recording = run_session(Options(command, output=folder, force=True), lambda _line: None)
    sys.exit(recording.exit_code())


def finish(folder: Path) -> None:
    """Finalise and correlate a recording; say how long it took, and what it is."""
    from tracer.correlate.trace import complete
    from tracer.store.layout import TraceFolder

    began = time.perf_counter()
    manifest = complete(TraceFolder(folder))
    seconds = time.perf_counter() - began
    events = sum(kind["written"] for kind in manifest["events"].values())
    print(
        json.dumps(
            {
                "events": events,
                "seconds": seconds,
                "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                "stored_bytes": sum(p.stat().st_size for p in folder.iterdir()),
            }
        )
    )


if __name__ == "__main__":
    half, where, *rest = sys.argv[1:]
    if half == "record":
        record(Path(where), rest[1:])
    else:
        finish(Path(where))
