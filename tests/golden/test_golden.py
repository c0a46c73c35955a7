"""What is made of one recorded trace (record.py), letter by letter; --update-golden, then read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf import text_format
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as pb

from tracer.cli.main import main
from tracer.correlate.trace import open_trace
from tracer.report.flat import plain
from tracer.report.page.document import page_document
from tracer.report.summary import summary

if TYPE_CHECKING:
    from collections.abc import Callable

    Compare = Callable[[str, str], None]
    Say = Callable[..., str]

LISTINGS = ("awaits", "tasks", "steps", "blocking", "info", "timeline")


@pytest.mark.parametrize("command", LISTINGS)
def test_table(said: Say, golden: Compare, command: str) -> None:
    """What people read."""
    golden(f"{command}.txt", said(command, *(["--width", "120"] if command == "timeline" else [])))


@pytest.mark.parametrize("command", LISTINGS)
def test_json(said: Say, golden: Compare, command: str) -> None:
    """What programs read."""
    golden(f"{command}.json", lines(json.loads(said(command, "--json"))))


def test_summary(recorded: Path, said: Say, golden: Compare) -> None:
    """What `run` says at its end: it names the await that the next command explains."""
    text = "\n".join(summary(open_trace(recorded, recorded.parent)))
    golden("summary.txt", text.replace(str(recorded), "golden.trace"))
    explained = json.loads(said("steps", "--json"))["await"]["await_id"]
    assert f"(await {explained})" in text


@pytest.mark.parametrize("by", ["where", "coroutine", "task"])
def test_groups(said: Say, golden: Compare, by: str) -> None:
    """The grouped awaits."""
    golden(f"awaits-{by}.txt", said("awaits", "--group", by))


@pytest.mark.parametrize("to", ["csv", "mermaid"])
def test_texts(said: Say, golden: Compare, to: str) -> None:
    """The exports that are texts."""
    golden(f"export-{to}.txt", said("export", "--to", to, "-o", "-"))


def test_perfetto(recorded: Path, golden: Compare, tmp_path: Path) -> None:
    """Each packet as the format's own classes print it."""
    out = tmp_path / "golden.pftrace"
    main(["export", str(recorded), "--to", "perfetto", "-o", str(out)], standalone_mode=False)
    packets = pb.Trace.FromString(out.read_bytes()).packet
    assert {packet.trusted_packet_sequence_id for packet in packets} == {1}
    for packet in packets:
        packet.ClearField("trusted_packet_sequence_id")
    texts = [text_format.MessageToString(packet, as_one_line=True) for packet in packets]
    golden("export-perfetto.txt", "\n".join(texts))


def test_page(recorded: Path, golden: Compare) -> None:
    """The data of the page."""
    document = json.loads(json.dumps(page_document(open_trace(recorded, Path())), default=plain))
    golden("page.json", lines(document))


def lines(document: dict[str, Any]) -> str:
    """Return JSON with a line for each entry of a list or an object under the top."""
    return "\n".join(f"{key}: {_entries(value)}" for key, value in document.items())


def _entries(value: Any) -> str:
    if isinstance(value, dict) and value:
        return "\n".join(["{", *(f"  {k}: {_json(v)}" for k, v in value.items()), "}"])
    if isinstance(value, list) and value:
        return "\n".join(["[", *(f"  {_json(one)}" for one in value), "]"])
    return _json(value)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
