"""A trace for ui.perfetto.dev: TrackEvent packets, written in chunks.

Format: perfetto's protos/perfetto/trace/track_event/*.proto. Names are interned: they are said
once, then numbered. Clock: CLOCK_MONOTONIC.
"""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any

from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as pb

from tracer.report.export import tracks as timeline

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracer.correlate.trace import Trace

_SEQUENCE = 1
_CHUNK = 1 << 13
_MONOTONIC, _REALTIME = 3, 1  # BuiltinClock in builtin_clock.proto
_CLEARED, _NEEDS = 1, 2  # TracePacket.SequenceFlags
_BEGIN, _END, _INSTANT, _COUNTER = 1, 2, 3, 4  # TrackEvent.Type


class _Names:
    """Numbers for texts that come often; the first use of one says it."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[str, str], int] = {}
        self._fresh: list[tuple[str, int, str]] = []

    def number(self, field: str, text: str) -> int:
        """Return the number of a text of InternedData.`field`."""
        key = (field, text)
        found = self._numbers.get(key)
        if found is None:
            found = self._numbers[key] = len(self._numbers) + 1
            self._fresh.append((field, found, text))
        return found

    def fresh(self) -> Any:  # noqa: ANN401 (a protobuf message)
        """Return what has to be said before the next packet, None if nothing."""
        if not self._fresh:
            return None
        said = pb.InternedData()
        for field, number, text in self._fresh:
            getattr(said, field).add(iid=number, **_text(field, text))
        self._fresh.clear()
        return said


def _text(field: str, text: str) -> dict[str, Any]:
    return {"str": text.encode()} if field.endswith("string_values") else {"name": text}


def write_perfetto(trace: Trace, out: IO[bytes]) -> int:
    """Write the whole trace; return how many packets it has."""
    chunk, count = pb.Trace(), 0
    for packet in _packets(trace):
        chunk.packet.append(packet)
        count += 1
        if len(chunk.packet) == _CHUNK:
            out.write(chunk.SerializeToString())
            chunk = pb.Trace()
    out.write(chunk.SerializeToString())
    return count


def _packets(trace: Trace) -> Iterator[Any]:
    yield _clocks(trace)
    yield pb.TracePacket(
        trusted_packet_sequence_id=_SEQUENCE,
        sequence_flags=_CLEARED,
        trace_packet_defaults={"timestamp_clock_id": _MONOTONIC},
    )
    for track in timeline.tracks(trace):
        yield _descriptor(track)
    names = _Names()
    yield from _slices(timeline.slices(trace), names)
    for new, one in timeline.loose(trace):
        if new is not None:
            yield _descriptor(new)
        yield from _slices(iter([one]), names)
    for sample in timeline.samples(trace):
        yield pb.TracePacket(
            timestamp=sample.ts_ns,
            trusted_packet_sequence_id=_SEQUENCE,
            sequence_flags=_NEEDS,
            track_event={
                "type": _COUNTER,
                "track_uuid": sample.track,
                "counter_value": int(sample.value),
            },
        )


def _clocks(trace: Trace) -> Any:  # noqa: ANN401 (a protobuf message)
    host = trace.manifest["host"]
    clocks = [
        {"clock_id": _MONOTONIC, "timestamp": host["monotonic_ns"]},
        {"clock_id": _REALTIME, "timestamp": host["realtime_ns"]},
    ]
    return pb.TracePacket(
        trusted_packet_sequence_id=_SEQUENCE,
        clock_snapshot={"clocks": clocks, "primary_trace_clock": _MONOTONIC},
    )


def _descriptor(track: timeline.Track) -> Any:  # noqa: ANN401 (a protobuf message)
    about: dict[str, Any] = {"uuid": track.id, "name": track.name}
    if track.parent:
        about["parent_uuid"] = track.parent
    if track.kind == timeline.PROCESS:
        about = {"uuid": track.id, "process": {"pid": track.number, "process_name": track.name}}
    elif track.kind == timeline.THREAD:
        thread = {"pid": track.tgid, "tid": track.number, "thread_name": track.name}
        about = {"uuid": track.id, "thread": thread}
    elif track.kind in (timeline.READY, timeline.LAG, timeline.LOST):
        unit = "UNIT_TIME_NS" if track.kind == timeline.LAG else "UNIT_COUNT"
        about["counter"] = {"unit": pb.CounterDescriptor.Unit.Value(unit)}
    return pb.TracePacket(trusted_packet_sequence_id=_SEQUENCE, track_descriptor=about)


def _slices(found: Iterator[timeline.Slice], names: _Names) -> Iterator[Any]:
    """Say each slice's begin and end: an end before whatever begins then or later."""
    open_: list[timeline.Slice] = []
    for one in found:
        while open_ and (open_[-1].track != one.track or open_[-1].end_ns <= one.start_ns):
            yield _end(open_.pop())
        yield _begin(one, names)
        if one.end_ns > one.start_ns:
            open_.append(one)
    while open_:
        yield _end(open_.pop())


def _begin(one: timeline.Slice, names: _Names) -> Any:  # noqa: ANN401 (a protobuf message)
    facts = []
    for key, value in one.facts.items():
        fact: dict[str, Any] = {"name_iid": names.number("debug_annotation_names", key)}
        if isinstance(value, str):
            fact["string_value_iid"] = names.number("debug_annotation_string_values", value)
        else:
            fact["int_value"] = value
        facts.append(fact)
    event = {
        "type": _BEGIN if one.end_ns > one.start_ns else _INSTANT,
        "track_uuid": one.track,
        "name_iid": names.number("event_names", one.name),
        "category_iids": [names.number("event_categories", one.category)],
        "debug_annotations": facts,
        "flow_ids": [*one.leave, *one.pass_on],
        "terminating_flow_ids": one.arrive,
    }
    return pb.TracePacket(
        timestamp=one.start_ns,
        trusted_packet_sequence_id=_SEQUENCE,
        sequence_flags=_NEEDS,
        interned_data=names.fresh(),
        track_event=event,
    )


def _end(one: timeline.Slice) -> Any:  # noqa: ANN401 (a protobuf message)
    return pb.TracePacket(
        timestamp=one.end_ns,
        trusted_packet_sequence_id=_SEQUENCE,
        sequence_flags=_NEEDS,
        track_event={"type": _END, "track_uuid": one.track},
    )
