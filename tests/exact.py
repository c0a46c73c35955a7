"""Compare a trace with what programs that use streams.py say of their reads."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tracing import Row, Traced

OUTCOME = {"ok": "result", "eof": "result"}


def facts(rows: list[Row], task: str) -> Counter[tuple[Any, ...]]:
    """Count rows by process, task, bytes and outcome."""
    keys = ("tgid", task, "sent_bytes", "recv_bytes")
    return Counter(
        (*(row[key] for key in keys), OUTCOME.get(row["outcome"], row["outcome"])) for row in rows
    )


def check_exact(trace: Traced) -> None:
    """Check every read of both sides against the truth: none wrong, none missing, none guessed."""
    found = trace.awaits_at("streams.py", "await reader.readexactly(HEADER")
    found += trace.awaits_at("streams.py", "await self.reader.readexactly(")
    truth = trace.truth["rows"] + trace.truth["server_rows"]
    assert facts(found, "task_name") == facts(truth, "task")
    assert {row["attribution"] for row in trace.awaits} == {"exact"}
