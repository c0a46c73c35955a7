"""The form of a finding, and the words that all of them use."""

from __future__ import annotations

from typing import Any

Finding = dict[str, Any]
SHOWN = 3  # of one sort


def finding(title: str, text: str, threshold: str, cost_ns: int, **evidence: Any) -> Finding:  # noqa: ANN401
    """Return a finding; `evidence` is an example's await_id and a source line's `where`."""
    about = {"await_id": None, "where": None, **evidence}
    return {"title": title, "text": text, "threshold": threshold, "cost_ns": cost_ns, **about}


def ms(ns: float) -> str:
    """Show a duration in milliseconds."""
    return f"{ns / 1e6:,.1f} ms"


def times(count: int) -> str:
    """Say how often."""
    return "once" if count == 1 else f"{count} times"


def awaits(count: int) -> str:
    """Say how many awaits."""
    return "1 await" if count == 1 else f"{count} awaits"
