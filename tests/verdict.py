"""Hold a trace against what a load of tests/apps/running.py says of itself."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from exact import facts

from tracer.system.syscalls import RECVS

if TYPE_CHECKING:
    from tracing import Row, Traced


@dataclass
class Verdict:
    """How many awaits a load noted, which of them the trace has wrong, and how sure it was.

    `moving` counts the rows that moved bytes, `inferred` and `unattributed` those among them.
    `missed` are inferred rows though wake edges lead from a receive on their socket to their end.
    """

    noted: int = 0
    moving: int = 0
    inferred: int = 0
    unattributed: int = 0
    wrong: list[dict[str, Any]] = field(default_factory=list)
    missed: list[Row] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Say whether nothing is wrong or missed, and under 0.5 % without a task."""
        some = self.noted > 0 and self.moving > 0
        return (
            some and not self.wrong and not self.missed and self.unattributed < 0.005 * self.moving
        )


def verdict(trace: Traced) -> Verdict:
    """Judge a trace by what its program told: noted awaits, or rows of unique lengths."""
    said = _by_waits(trace) if "waits" in trace.truth else _by_rows(trace)
    for row in trace.awaits:
        if row["kind"] != "callback" and (row["sent_bytes"] or row["recv_bytes"]):
            said.moving += 1
            said.inferred += row["attribution"] == "inferred"
            said.unattributed += row["attribution"] == "unattributed"
    said.missed = missed(trace)
    return said


def missed(trace: Traced) -> list[Row]:
    """Return the inferred rows to whose end callbacks lead from a receive on their socket."""
    return trace.query(
        f"""
        WITH RECURSIVE edge AS (
          SELECT a.await_id, a.sock, s.agent, s.waker_run AS run, s.wake_ns
            FROM "await" a JOIN task_total t USING (task_id)
            JOIN step s ON s.agent = t.agent AND s.task = t.serial AND s.ts_ns = a.end_ns
           WHERE a.attribution = 'inferred' AND a.ended_by <> 'recv'
          UNION
          SELECT await_id, sock, c.agent, c.waker_run, c.wake_ns
            FROM edge JOIN callback c USING (agent, run) WHERE c.waker_run > 0)
        SELECT DISTINCT await_id, call.id FROM edge JOIN callback c USING (agent, run)
          JOIN syscall call ON call.sock = edge.sock AND call.tid = c.tid AND call.ret >= 0
           AND call.ts_ns BETWEEN c.ts_ns AND least(c.end_ns, edge.wake_ns)
         WHERE call.nr IN ({", ".join(map(str, sorted(RECVS)))}) ORDER BY await_id"""
    )


def _by_rows(trace: Traced) -> Verdict:
    """Compare the reads of streams.py, or the answers of multiplex.py, with what was told."""
    truth = trace.truth
    if truth["app"] == "multiplex":
        keys = ("task", "sent_bytes")
        told = Counter(tuple(row[key] for key in keys) for row in truth["rows"])
        rows = trace.awaits_at("multiplex.py", "await future")
        found = Counter((row["task_name"], row["sent_bytes"]) for row in rows)
    else:
        rows = [{"tgid": truth["tgid"], **r} for r in truth["rows"] + truth["server_rows"]]
        told = facts(rows, "task")
        rows = trace.awaits_at("streams.py", "await reader.readexactly(HEADER")
        found = facts(
            rows + trace.awaits_at("streams.py", "await self.reader.readexactly("), "task_name"
        )
    wrong = [{"told": fact} for fact in (told - found).elements()]
    wrong += [{"found": fact} for fact in (found - told).elements()]
    return Verdict(noted=told.total(), wrong=wrong)


def _by_waits(trace: Traced) -> Verdict:
    """Compare the bytes of each noted await with those of its task's rows inside it.

    What a library lets a task of its own do is the work of the task that created that one.
    """
    truth = trace.truth
    names = {wait["task"] for wait in truth["waits"]}
    owner: dict[int | None, str] = {None: ""}
    for task in trace.tasks:  # parents come first
        name = task["task_name"]
        owner[task["task_id"]] = name if name in names else owner[task["parent_task_id"]]
    said = Verdict(noted=len(truth["waits"]))
    rows: dict[str, list[Row]] = defaultdict(list)
    for row in trace.awaits:
        rows[owner[row["task_id"]]].append(row)
    for mine in rows.values():
        mine.sort(key=lambda row: row["suspend_ns"] or 0)
    for wait in truth["waits"]:
        found = _moved(rows[wait["task"]], wait)
        for way, overhead in truth["overhead"].items():
            most = 0 if wait.get("exact") else overhead
            if way in wait and not wait[way] <= found[way] <= wait[way] + most:
                said.wrong.append({**wait, "found": found})
                break
    return said


def _moved(rows: list[Row], wait: dict[str, Any]) -> dict[str, int]:
    """Return the bytes of a task's rows (sorted by suspend_ns) that lie in a noted await."""
    first = bisect_right(rows, wait["start_ns"], key=lambda row: row["suspend_ns"] or 0)
    inside = []
    for row in rows[first:]:
        if row["suspend_ns"] > wait["end_ns"]:
            break
        if wait["outcome"] != "ok" or row["end_ns"] <= wait["end_ns"]:
            inside.append(row)
    return {way: sum(row[f"{way}_bytes"] for row in inside) for way in ("sent", "recv")}
