"""Compile, attach and remove all probes once: the doctor's `--deep`."""

from __future__ import annotations

import time

from tracer.capture.loader import Loader
from tracer.errors import AwaitscopeError
from tracer.system.checks import Check


def load_everything() -> Check:
    """Return the doctor's line about all probes of the highest level."""
    why = "what the single checks promise is tried on the real probes"
    begin_ns = time.monotonic_ns()
    try:
        loader = Loader(level=3, ring_bytes=1 << 16)
        try:
            loader.attach()
            probes = list(loader.probes)
        finally:
            loader.close()
    except AwaitscopeError as error:
        seen = error.message
        return Check("probes", "fail", required=True, seen=seen, why=why, fix=error.fix)
    seconds = (time.monotonic_ns() - begin_ns) / 1e9
    absent = [f"{p.hook} ({p.reason})" for p in probes if p.rung == "absent"]
    seen = f"{len(probes) - len(absent)} of {len(probes)} attached in {seconds:.1f} s"
    if not absent:
        return Check("probes", "ok", required=True, seen=seen, why=why)
    fix = "none needed: what they would show is absent, with the reason"
    seen = f"{seen}; absent: {', '.join(absent)}"
    return Check("probes", "warn", required=True, seen=seen, why=why, fix=fix)
