"""One await as a swimlane: who worked when, drawn by `timeline` and by the HTML page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tracer.correlate.words import STAGES
from tracer.report.steps import explain, leg_of

if TYPE_CHECKING:
    from tracer.correlate.trace import Row, Trace

# lane -> the steps of anatomy.STEPS that happen in it
LANES: dict[str, tuple[int, ...]] = {
    "your code": (1, 13),
    "driver": (2, 3, 12),
    "event loop": (10, 11),
    "kernel TX": (4,),
    "wire and server": (5, 6, 7),
    "NIC, softirq": (8,),
    "epoll, wakeup": (9,),
}


def swimlane(trace: Trace, row: Row, trip: int | None = None) -> dict[str, Any]:
    """Return an await's lanes and stages.

    Args:
        trace: the trace.
        row: the await, as await_rows() gives it.
        trip: which of its trips, from 1; default the last.

    Returns:
        await: the row. trip: the number shown. start_ns, end_ns: bounds of that trip.
        lanes: name and spans of each; a span is a step with its bounds (ns), status and proof.
        stages: name, start_ns, end_ns of each stage that is known and took time.

    """
    leg = leg_of(trace, row, trip)
    document = explain(trace, row, leg)
    steps = {step["step"]: step for step in document["steps"]}
    return {
        "await": row,
        "trip": leg["trip"],
        "start_ns": leg["t0_ns"],
        "end_ns": leg["t8_ns"],
        "lanes": [
            {"lane": lane["lane"], "spans": [_span(steps[n]) for n in lane["steps"]]}
            for lane in timed_lanes(document)
        ],
        "stages": stage_spans(leg),
        "notes": document["notes"],
        "observed_order": document["observed_order"],
    }


def timed_lanes(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Return each lane with the numbers of its steps that have a begin and an end."""
    timed = {step["step"] for step in document["steps"] if _is_timed(step)}
    return [
        {"lane": lane, "steps": [n for n in numbers if n in timed]}
        for lane, numbers in LANES.items()
    ]


def stage_spans(leg: Row) -> list[dict[str, Any]]:
    """Return the stages of a trip that are known and took time, in order."""
    return [
        {
            "stage": name,
            "start_ns": leg[f"t{cut}_ns"],
            "end_ns": leg[f"t{cut}_ns"] + leg[f"{name}_ns"],
        }
        for cut, name in enumerate(STAGES)
        if leg[f"{name}_ns"]
    ]


def _is_timed(step: Row) -> bool:
    return step["start_ns"] is not None and step["dur_ns"] is not None


def _span(step: Row) -> dict[str, Any]:
    end = step["start_ns"] + step["dur_ns"]
    return {
        **{key: step[key] for key in ("step", "what", "status", "reason", "start_ns")},
        "end_ns": end,
        "evidence": step["evidence"],
    }
