"""The agent in Python writes what record.h says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracer.agent.light import records as light
from tracer.events import header

if TYPE_CHECKING:
    from numpy import dtype

_CODES = {"|u1": "B", "<u2": "H", "<u4": "I", "<i4": "i", "<u8": "Q"}


def form(layout: dtype[object]) -> str:
    """Return a record's format as struct wants it; unused bytes at its end are padding."""
    text, fields = "<", layout.fields or {}
    for name in layout.names or ():
        of, offset = fields[name][:2]
        if name in ("spare2", "spare3"):
            return f"{text}{64 - offset}x"
        text += f"{of.itemsize}s" if of.kind == "S" else _CODES[of.str]
    return text


def test_records_are_those_of_the_header() -> None:
    """Each record has its kind, and its fields in their places; uvloop's are known only in C."""
    known = header.load()
    for record in known.records.values():
        name = record.name.upper()
        if (record.kind or 0) >= known.constants["KIND_LOOP"] and name != "STREAM_WRITE":
            assert getattr(light, f"KIND_{name}") == record.kind
            assert getattr(light, name).format == form(record.dtype), name


def test_numbers_are_those_of_the_header() -> None:
    """What has a name in both has one value."""
    constants = header.load().constants
    for name, value in vars(light).items():
        if name.startswith(("KIND_", "HOW_", "RUN_", "LOOP_", "HANDSHAKE_")) and name != "KIND_AT":
            assert value == constants[name], name
    assert constants["AGENT_MAGIC"] == light.MAGIC
    assert constants["RECORD_SCHEMA"] == light.SCHEMA
    assert constants["AGENT_PRCTL"] == light.PRCTL
    assert (
        constants["AGENT_OPEN_AT"],
        constants["AGENT_OPEN_RUNS"],
    ) == (light.OPEN_AT, light.OPEN_RUNS)


def test_the_ring_has_the_header_of_the_header() -> None:
    """The fields of the ring file's header are where the light agent writes them."""
    fields = header.load().records["agent_ring"].dtype.fields
    assert fields is not None
    for name, value in vars(light).items():
        if name.startswith("HEAD_AT_"):
            assert value == fields[name.removeprefix("HEAD_AT_").lower()][1], name
    assert light.HEAD.format == "<8xIIQQQQQII"
    names = [name for name in fields if fields[name][1] < light.HEAD.size]
    assert names == [
        *("magic", "schema", "pid", "agent", "start_ns", "slots", "head", "tail"),
        *("hexversion", "mode"),
    ]
    assert header.load().records["step"].dtype.fields["kind"][1] == light.KIND_AT
    assert fields["orphan_pid"][0].shape[0] == light.ORPHANS
