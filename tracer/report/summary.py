"""What `run` says at its end: losses first, then what there is to see."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracer.agent import light_mode
from tracer.correlate.words import LONG_HOLD_NS
from tracer.events.header import load as load_header
from tracer.report.steps import slowest_on_a_socket
from tracer.report.text import printable
from tracer.store.stops import STOPS
from tracer.system.invocation import called_as

if TYPE_CHECKING:
    from tracer.correlate.trace import Trace

NO_LOOP = (
    "only asyncio's and uvloop's loops have tasks, and none was seen"
    " (a process that only starts others has none; trio has its own)"
)
_OF_AGENT = [r.name for r in load_header().records.values() if r.kind is not None and r.kind >= 32]


def lost_total(trace: Trace) -> int:
    """Return how many records were lost, of all kinds."""
    return sum(e["lost"] for e in trace.manifest["events"].values())


def shortcomings(trace: Trace) -> list[str]:
    """Return what every reader must know first: what was lost, and that the trace was cut."""
    events, manifest = trace.manifest["events"], trace.manifest
    lines = []
    lost = lost_total(trace)
    if lost:
        of_agents = sum(events[name]["lost"] for name in _OF_AGENT)
        larger = ["--ring"] * (lost > of_agents) + ["--agent-slots"] * (of_agents > 0)
        lines.append(
            f"LOST {lost} records (rings were full): rows they touch are marked incomplete;"
            f" try a larger {' and '.join(larger)}, or a lower --level"
        )
    stopped = manifest.get("stopped")
    if manifest["state"] == "cut" or stopped not in (None, "duration"):
        seconds = (manifest["end_ns"] - manifest["start_ns"]) / 1e9
        why = (
            f"the recording stopped: {STOPS[stopped]}"
            if stopped
            else "the tracer died while it recorded"
        )
        lines.append(
            f"CUT: {why}; the trace ends after {seconds:.3f} s, and up to there it is whole"
        )
    return lines


def with_loops(trace: Trace) -> set[int]:
    """Return the agents that saw an event loop, as indices into the manifest's list."""
    return {row["agent"] for row in trace.rows("SELECT DISTINCT agent FROM loop")}


def summary(trace: Trace) -> list[str]:
    """Return the closing lines of a recording."""
    manifest = trace.manifest
    written = sum(e["written"] for e in manifest["events"].values())
    seconds = (manifest["end_ns"] - manifest["start_ns"]) / 1e9
    lines = shortcomings(trace)
    awaits = trace.rows('SELECT count(*) AS n, max(total_ns) AS worst FROM "await"')[0]
    lines.append(
        f"{written} events in {seconds:.1f} s, {lost_total(trace)} lost; {awaits['n']} awaits:"
        f" {trace.folder.path}"
    )
    modes = {a["mode"]: a.get("reason", "") for a in manifest["agents"]}
    if "light" in modes:
        lines.append(light_mode(modes["light"]))
    elif "c" not in modes:
        reasons = {a.get("reason", "") for a in manifest["agents"]} or {
            "no Python process started the agent"
        }
        lines.append(f"no tasks: {'; '.join(sorted(reasons))}")
    elif not with_loops(trace):
        lines.append(f"no tasks: {NO_LOOP}")
    left = manifest.get("left_running", [])
    if left and manifest.get("exit_code") is not None:
        lines.append(
            f"still running when the command returned: {_listing(trace, left)}; to record more of"
            " what a command leaves in the background, run that in the foreground"
        )
    return lines + _slowest(trace) + _held(trace)


def _slowest(trace: Trace) -> list[str]:
    """Name the await that `steps` explains next; where none is on a socket, the slowest of all."""
    on_socket = slowest_on_a_socket(trace)
    found = trace.rows(
        'SELECT await_id, task_name, "where", total_ns, round_trips FROM "await"'
        " WHERE CASE WHEN $1 IS NULL THEN task_id IS NOT NULL ELSE await_id = $1 END"
        " ORDER BY total_ns DESC LIMIT 1",
        on_socket,
    )
    if not found:
        return []
    row = found[0]
    where = " round trip" if row["round_trips"] else " on a socket" if on_socket else ""
    command = "steps" if on_socket else "awaits"
    worst = (
        f"slowest{where}: {row['total_ns'] / 1e6:.2f} ms, task {printable(row['task_name'])},"
        f" {printable(row['where'])} (await {row['await_id']})"
    )
    return [worst, f"next: {called_as()} {command} {trace.folder.path}"]


def _held(trace: Trace) -> list[str]:
    """Say whether the program held its loops for long; what others did to it is not meant."""
    held = trace.rows(
        "SELECT count(*) AS n, coalesce(max(own_ns), 0) AS longest FROM hold"
        " WHERE own_ns > ? AND kind <> 'iteration' AND cause NOT IN ('preempted', 'throttled')",
        LONG_HOLD_NS,
    )[0]
    if not held["n"]:
        return []
    longest = held["longest"] / 1e6
    times = "once" if held["n"] == 1 else f"{held['n']} times"
    line = (
        f"a loop was held {times} over {LONG_HOLD_NS // 1_000_000} ms, at longest"
        f" {longest:.0f} ms: {called_as()} blocking {trace.folder.path}"
    )
    return [line]


def _listing(trace: Trace, tgids: list[int]) -> str:
    """Return the first few processes by number and name."""
    names = {p["tgid"]: str(p.get("exe", "?")) for p in trace.manifest["processes"]}
    shown = [f"{tgid} ({printable(names.get(tgid, '?').rsplit('/', 1)[-1])})" for tgid in tgids[:5]]
    return ", ".join(shown) + (f" and {len(tgids) - 5} more" if len(tgids) > 5 else "")
