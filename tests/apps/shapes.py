"""Ground truth: one shape of await per run, `python shapes.py SHAPE`.

The tasks to look at are named after the shape. The last line of stdout is JSON: `count` (how many
awaits of the shape there were) and `waits`, one object per await with task, what, outcome,
start_ns, end_ns (CLOCK_MONOTONIC, read in the task just around the await) and the shape's own
facts: sent_bytes, recv_bytes, round_trips, woken_by, deadline_ms.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os

import shapes_ends
import shapes_groups
import shapes_hidden
import shapes_indirect
import shapes_loop
import shapes_reads
import shapes_sockets
import shapes_sync
import shapes_workers
from truth import WAITS

MODULES = (
    shapes_sockets,
    shapes_reads,
    shapes_indirect,
    shapes_loop,
    shapes_sync,
    shapes_groups,
    shapes_ends,
    shapes_hidden,
    shapes_workers,
)
# `yield` is a keyword, so its function has another name.
SHAPES = {
    shape.__name__.replace("yielding", "yield"): shape
    for module in MODULES
    for shape in module.SHAPES
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("shape", choices=sorted(SHAPES))
    name = parser.parse_args().shape
    facts = asyncio.run(SHAPES[name]())
    print(
        json.dumps({"app": "shapes", "shape": name, "tgid": os.getpid(), **facts, "waits": WAITS})
    )
