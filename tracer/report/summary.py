"""What `run` says at its end: losses first, then what there is to see."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tracer.correlate.trace import Trace


def lost_total(trace: Trace) -> int:
    """Return how many records were lost, of all kinds."""
    return sum(e["lost"] for e in trace.manifest["events"].values())


def summary(trace: Trace) -> list[str]:
    """Return the closing lines of a recording."""
    manifest = trace.manifest
    written = sum(e["written"] for e in manifest["events"].values())
    seconds = (manifest["end_ns"] - manifest["start_ns"]) / 1e9
    lines = []
    lost = lost_total(trace)
    if lost:
        lines.append(
            f"LOST {lost} records (rings were full): rows they touch are marked incomplete;"
            " try a larger --ring or a lower --level"
        )
    awaits = trace.rows('SELECT count(*) AS n, max(total_ns) AS worst FROM "await"')[0]
    lines.append(
        f"{written} events in {seconds:.1f} s, {lost} lost; {awaits['n']} awaits:"
        f" {trace.folder.path}"
    )
    modes = [a for a in manifest["agents"] if a["mode"] == "c"]
    if not modes:
        reasons = {a.get("reason", "") for a in manifest["agents"]} or {
            "no Python process started the agent"
        }
        lines.append(f"no tasks: {'; '.join(sorted(reasons))}")
    slow = trace.rows(
        'SELECT await_id, task_name, "where", total_ns FROM "await"'
        " WHERE task_id IS NOT NULL ORDER BY total_ns DESC LIMIT 1"
    )
    if slow:
        row = slow[0]
        lines.append(
            f"slowest: {row['total_ns'] / 1e6:.2f} ms, task {_plain(row['task_name'])},"
            f" {_plain(row['where'])} (await {row['await_id']})"
        )
        lines.append(f"next: awaitscope steps {trace.folder.path}")
    return lines


def _plain(text: str) -> str:
    """Return a name from the target without control characters."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)
