"""Hold a trace against what a load of tests/coded_loads.py says of itself."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from exact import facts

from tracer.system.syscalls import RECVS, SENDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracing import Row, Traced


@dataclass
class Verdict:
    """How many awaits a load noted, which of them the trace has wrong, and how sure it was.

    `wrong` are rows with what no await did, `missing` awaits without a row. `moving` counts the
    rows that moved bytes, `inferred` and `unattributed` those among them.
    `missed` are inferred rows though wake edges lead from a receive on their socket to their end.
    """

    noted: int = 0
    right: int = 0
    moving: int = 0
    inferred: int = 0
    unattributed: int = 0
    wrong: list[Any] = field(default_factory=list)
    missing: list[Any] = field(default_factory=list)
    missed: list[Row] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Say whether nothing is wrong, missing or missed, and under 0.5 % without a task."""
        some = self.right == self.noted > 0 and self.moving > 0
        none = not (self.wrong or self.missing or self.missed)
        return some and none and self.unattributed < 0.005 * self.moving


def verdict(trace: Traced) -> Verdict:
    """Judge a trace by what its program told: noted awaits, or rows of unique lengths."""
    said = Verdict()
    if "waits" in trace.truth:
        _judge_waits(said, trace)
    for told, found in _counted(trace):
        said.noted += told.total()
        said.right += (told & found).total()
        said.missing += (told - found).elements()
        said.wrong += (found - told).elements()
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


def _counted(trace: Traced) -> Iterator[tuple[Counter[Any], Counter[Any]]]:
    """Count what a program told by unique lengths, and what its trace has of it."""
    truth = trace.truth
    if truth["app"] == "multiplex":
        rows = trace.awaits_at("multiplex.py", "await future")
        yield (
            Counter((row["task"], row["sent_bytes"]) for row in truth["rows"]),
            Counter((row["task_name"], row["sent_bytes"]) for row in rows),
        )
    elif truth["app"] == "pool":
        rows = trace.awaits_at("pool.py", "await conn.fetch(")
        # what a cancelled query would have received came later: the app cannot know it
        rows = [r | {"recv_bytes": None} if r["outcome"] == "cancelled" else r for r in rows]
        yield facts(_of(truth, truth["rows"]), "task"), facts(rows, "task_name")
    elif truth["app"] in {"streams", "loops"}:
        rows = trace.awaits_at("streams.py", "await reader.readexactly(HEADER")
        rows += trace.awaits_at("streams.py", "await self.reader.readexactly(")
        told = _of(truth, truth["rows"] + truth["server_rows"])
        yield facts(told, "task"), facts(rows, "task_name")
    elif truth["app"] == "churn":
        lives: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for row in trace.awaits_at("churn.py", "await reader.readexactly(recv)"):
            lives[row["task_id"]].append((row["sent_bytes"], row["recv_bytes"]))
        told_lives = (tuple(map(tuple, life)) for life in truth["lives"])
        yield Counter(told_lives), Counter(map(tuple, lives.values()))
    if "works" in truth:
        keys = ("task", "sent", "recv")
        yield (
            Counter(tuple(work[key] for key in keys) for work in truth["works"]),
            Counter(tuple(work[key] for key in keys) for work in _works(trace)),
        )


def _of(truth: dict[str, Any], rows: list[Row]) -> list[Row]:
    """Return what a program told, each row with its process."""
    return [{"tgid": truth["tgid"], **row} for row in rows]


def _works(trace: Traced) -> list[Row]:
    """Return what workers sent and received for the awaits that the ends of their calls ended.

    Only on sockets: a first connection imports, too, and so reads files.
    """
    sends, recvs = (", ".join(map(str, sorted(numbers))) for numbers in (SENDS, RECVS))
    return trace.query(
        f"""
        SELECT a.task_name AS task, sum(call.ret) FILTER (call.nr IN ({sends})) AS sent,
               sum(call.ret) FILTER (call.nr IN ({recvs})) AS recv
          FROM work_total w JOIN syscall call USING (tid)
          JOIN "await" a USING (await_id)
         WHERE call.ts_ns BETWEEN w.begin_ns AND w.end_ns AND call.ret > 0 AND call.sock > 0
         GROUP BY w.work_id, a.task_name ORDER BY w.work_id"""
    )


def _judge_waits(said: Verdict, trace: Traced) -> None:
    """Compare the bytes of each noted await with those of its task's rows inside it.

    What a library lets a task of its own do is the work of the task that created that one.
    """
    truth = trace.truth
    names = {wait["task"] for wait in truth["waits"]}
    owner: dict[int | None, str] = {None: ""}
    for task in trace.tasks:  # parents come first
        name = task["task_name"]
        owner[task["task_id"]] = name if name in names else owner[task["parent_task_id"]]
    said.noted += len(truth["waits"])
    rows: dict[str, list[Row]] = defaultdict(list)
    for row in trace.awaits:
        rows[owner[row["task_id"]]].append(row)
    for mine in rows.values():
        mine.sort(key=lambda row: row["suspend_ns"] or 0)
    for wait in truth["waits"]:
        found = _moved(rows[wait["task"]], wait)
        most = {way: 0 if wait.get("exact") else more for way, more in truth["overhead"].items()}
        ways = [way for way in most if way in wait]
        if all(wait[way] <= found[way] <= wait[way] + most[way] for way in ways):
            said.right += 1
        elif any(found.values()):
            said.wrong.append({**wait, "found": found})
        else:
            said.missing.append(wait)


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
