"""A trace as Chrome's JSON (chrome://tracing, speedscope, Perfetto), written as it is read.

Format: the Trace Event Format's array of complete (X), instant (i), counter (C), flow (s, t, f)
and metadata (M) events. Its times are microseconds; three decimals keep the nanoseconds.
"""

from __future__ import annotations

import json
from typing import IO, TYPE_CHECKING, Any

from tracer.report.export import tracks as timeline

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracer.correlate.trace import Trace

Event = dict[str, Any]
_CPUS = 0  # the pid under which CPUs and the counters of no process are shown


def write_chrome(trace: Trace, out: IO[bytes]) -> int:
    """Write the whole trace; return how many events it has."""
    out.write(b'{"displayTimeUnit":"ns","traceEvents":[')
    count = 0
    for event in _events(trace):
        out.write(b",\n" if count else b"\n")
        out.write(json.dumps(event, separators=(",", ":")).encode())
        count += 1
    out.write(b"\n]}\n")
    return count


def _events(trace: Trace) -> Iterator[Event]:
    where: dict[int, Event] = {}
    named: dict[int, str] = {}
    yield _name("process_name", "CPUs", {"pid": _CPUS})
    for track in timeline.tracks(trace):
        yield from _introduce(track, where, named)
    for one in timeline.slices(trace):
        yield from _slice(one, where[one.track])
    for new, one in timeline.loose(trace):
        if new is not None:
            yield from _introduce(new, where, named)
        yield from _slice(one, where[one.track])
    for sample in timeline.samples(trace):
        name = named[sample.track]
        yield {
            "ph": "C",
            "name": name,
            **where[sample.track],
            "ts": sample.ts_ns / 1e3,
            "args": {"value": sample.value},
        }


def _introduce(
    track: timeline.Track, where: dict[int, Event], named: dict[int, str]
) -> Iterator[Event]:
    """Give a track its pid and tid there, and its name."""
    pid = track.tgid or _CPUS
    named[track.id] = track.name
    # a thread keeps its tid; other tracks get numbers that no thread has
    tid = track.number if track.kind == timeline.THREAD else track.id >> 56 << 32 | track.number
    where[track.id] = {"pid": pid, "tid": tid}
    if track.kind == timeline.PROCESS:
        yield _name("process_name", track.name, {"pid": pid})
    else:
        yield _name("thread_name", track.name, where[track.id])


def _name(kind: str, name: str, place: Event) -> Event:
    return {"ph": "M", "name": kind, **place, "args": {"name": name}}


def _slice(one: timeline.Slice, place: Event) -> Iterator[Event]:
    start = one.start_ns / 1e3
    shape: Event = {"ph": "i", "s": "t"}
    if one.end_ns > one.start_ns:
        shape = {"ph": "X", "dur": (one.end_ns - one.start_ns) / 1e3}
    event = {"name": one.name, "cat": one.category, **place, "ts": start, "args": one.facts}
    yield shape | event
    for phase, arrows in (("s", one.leave), ("t", one.pass_on), ("f", one.arrive)):
        for arrow in arrows:
            # ids are texts: viewers take numbers for doubles
            flow = {"ph": phase, "id": hex(arrow), "name": "woke", "cat": "arrow", "ts": start}
            yield flow | place | ({"bp": "e"} if phase == "f" else {})
