"""Hold a trace against what a load of tests/apps/running.py says of itself."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tracing import Row, Traced


@dataclass
class Verdict:
    """How many awaits a load noted, which of them the trace has wrong, and how sure it was.

    `moving` counts the rows that moved bytes, `inferred` and `unattributed` those among them.
    """

    noted: int = 0
    moving: int = 0
    inferred: int = 0
    unattributed: int = 0
    wrong: list[dict[str, Any]] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Say whether nothing is wrong, and under 0.5 % without a task."""
        some = self.noted > 0 and self.moving > 0
        return some and not self.wrong and self.unattributed < 0.005 * self.moving


def verdict(trace: Traced) -> Verdict:
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
        if row["kind"] != "callback" and (row["sent_bytes"] or row["recv_bytes"]):
            said.moving += 1
            said.inferred += row["attribution"] == "inferred"
            said.unattributed += row["attribution"] == "unattributed"
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
