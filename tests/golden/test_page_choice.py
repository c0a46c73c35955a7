"""Which awaits the page's timeline shows where it cannot show all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracer.correlate.trace import open_trace
from tracer.correlate.words import LONG_HOLD_NS
from tracer.report.blocking import blocking_rows
from tracer.report.page import spans

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_the_slowest_and_the_delayed_stay(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the limit the slowest and those that a long hold delayed most are there."""
    trace = open_trace(recorded, recorded)
    waits = [wait for hold in blocking_rows(trace, LONG_HOLD_NS) for wait in hold["waited"]]
    waits.sort(key=lambda wait: -wait["delay_ns"])
    delayed = {wait["await_id"] for wait in waits[:3]}
    slowest = [
        row["await_id"]
        for row in trace.rows(
            'SELECT await_id FROM "await" WHERE task_id IS NOT NULL ORDER BY total_ns DESC LIMIT 3'
        )
    ]
    assert delayed - set(slowest)
    monkeypatch.setattr(spans, "MOST_AWAITS", 6)
    page = spans.timeline_document(trace)
    shown = {number for lane in page["lanes"] for number in lane["awaits"]} - {0}
    assert delayed | set(slowest) <= shown
    assert len(shown) < 36
    assert any("those that a long hold delayed most" in text for text in page["omitted"])
