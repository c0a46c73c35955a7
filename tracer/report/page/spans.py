"""The page's timeline: lanes of spans, as small as they can be told.

Times are ns since the trace's start. Above a limit the awaits that are shown are the slowest, those
that a long hold delayed most, and an unbiased sample of the rest (by a hash of their number); the
page says how many. Spans that would be thinner than a pixel at full zoom out are kept: zooming
shows them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tracer.correlate.words import LONG_HOLD_NS, STAGES
from tracer.report.blocking import READY
from tracer.report.intervals import HANDLERS, ON_CPU, SOFTIRQS, STAGE_SPANS, THREAD_NAMES
from tracer.system.syscalls import POLLS

if TYPE_CHECKING:
    from tracer.correlate.trace import Row, Trace

_POLLS = tuple(sorted(POLLS))
MOST_AWAITS = 12_000
MOST_RUNS = 60_000  # of each other kind
MOST_TASKS = 400
_KINDS = (
    *STAGES,
    "step",
    "callback",
    "sleeping",
    "interrupt",
    "softirq",
    "packet",
    "work",
    "running",
)
_NUMBER = {kind: n for n, kind in enumerate(_KINDS)}


class Lanes:
    """Lanes in the making: a span is [start, duration, kind, name]; names are said once."""

    def __init__(self, start_ns: int) -> None:
        """Begin with no lane."""
        self._start_ns = start_ns
        self._names: dict[str, int] = {}
        self._lanes: dict[tuple[str, Any], Row] = {}

    def add(self, lane: tuple[str, Any], title: str, rows: list[Row]) -> None:
        """Add rows (start_ns, end_ns, kind, name; perhaps await_id) to a lane, in their order."""
        entry = self._lanes.setdefault(
            lane, {"group": lane[0], "number": lane[1], "name": title, "spans": [], "awaits": []}
        )
        for row in rows:
            name = self._names.setdefault(row["name"] or "", len(self._names))
            entry["spans"] += [
                row["start_ns"] - self._start_ns,
                row["end_ns"] - row["start_ns"],
                _NUMBER[row["kind"]],
                name,
            ]
            entry["awaits"].append(row.get("await_id") or 0)

    def document(self) -> dict[str, Any]:
        """Return lanes, the names they refer to, and the words of the kinds."""
        for lane in self._lanes.values():
            if not any(lane["awaits"]):
                lane["awaits"] = []
        return {"lanes": list(self._lanes.values()), "names": list(self._names), "kinds": _KINDS}


def timeline_document(trace: Trace) -> dict[str, Any]:
    """Return the timeline: lanes, and what was left out (omitted: texts)."""
    lanes = Lanes(trace.manifest["start_ns"])
    omitted = [*_loops(trace, lanes), *_tasks(trace, lanes), *_workers(trace, lanes)]
    omitted += [*_cpus(trace, lanes), *_others(trace, lanes)]
    length = trace.manifest["end_ns"] - trace.manifest["start_ns"]
    return {**lanes.document(), "length_ns": length, "omitted": omitted}


def _sampled(trace: Trace, lanes: Lanes, group: str, what: str, sql: str) -> list[str]:
    """Add the rows of a query (lane, title, start_ns, end_ns, kind, name); every k-th if many.

    The longest are kept all the same.
    """
    (count,) = trace.rows(f"SELECT count(*) AS n FROM ({sql})")
    keep = max(1, -(-count["n"] // MOST_RUNS))
    rows = trace.rows(
        f"SELECT * FROM ({sql}) WHERE hash(start_ns) % {keep} = 0 OR end_ns - start_ns > 1000000"
        " ORDER BY lane, start_ns, end_ns DESC LIMIT ?",
        2 * MOST_RUNS,
    )
    by_lane: dict[Any, list[Row]] = {}
    for row in rows:
        by_lane.setdefault((row["lane"], row["title"]), []).append(row)
    for (lane, title), mine in by_lane.items():
        lanes.add((group, lane), title, mine)
    if len(rows) < count["n"]:
        return [f"{len(rows):,} of {count['n']:,} {what}: those over 1 ms and a sample"]
    return []


def _loops(trace: Trace, lanes: Lanes) -> list[str]:
    return _sampled(
        trace,
        lanes,
        "loop",
        "steps, callbacks and sleeps of event loops",
        f"""
        SELECT r.tid AS lane, 'loop, thread ' || r.tid AS title, r.ts_ns AS start_ns, r.end_ns,
               'step' AS kind, coalesce(nullif(t.task_name, ''), t.coroutine) AS name
          FROM step r LEFT JOIN task_total t ON t.agent = r.agent AND t.serial = r.task
        UNION ALL
        SELECT tid, 'loop, thread ' || tid, ts_ns, end_ns, 'callback', text
          FROM callback c LEFT JOIN string s ON s.agent = c.agent AND s.id = c.name_str
        UNION ALL
        SELECT tid, 'loop, thread ' || tid, ts_ns, ts_ns + dur_ns, 'sleeping', 'epoll_wait'
          FROM epoll_wait WHERE tid IN (SELECT tid FROM step)
        UNION ALL
        SELECT tid, 'loop, thread ' || tid, ts_ns, ts_ns + dur_ns, 'sleeping', 'poll'
          FROM syscall WHERE nr IN {_POLLS} AND tid IN (SELECT tid FROM step)
           AND tid NOT IN (SELECT tid FROM epoll_wait)""",
    )


def _tasks(trace: Trace, lanes: Lanes) -> list[str]:
    (count,) = trace.rows('SELECT count(*) AS n FROM "await" WHERE task_id IS NOT NULL')
    keep = max(1, -(-count["n"] // (MOST_AWAITS // 2)))
    trace.connection.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE shown AS
        WITH ranked AS (
          SELECT await_id, task_id, row_number() OVER (ORDER BY total_ns DESC) AS place
            FROM "await" WHERE task_id IS NOT NULL),
        delayed AS (
          SELECT await_id FROM leg JOIN ranked USING (await_id)
            JOIN hold h ON h.tid = leg.tid AND h.own_ns > {LONG_HOLD_NS}
             AND {READY} < h.start_ns + h.dur_ns AND t8_ns > greatest(h.start_ns, {READY})
           GROUP BY await_id
           ORDER BY max(least(h.start_ns + h.dur_ns, t8_ns) - greatest(h.start_ns, {READY})) DESC,
                    await_id LIMIT {MOST_AWAITS // 2})
        SELECT await_id, task_id FROM ranked
         WHERE place <= {MOST_AWAITS // 2} OR hash(await_id) % {keep} = 0
            OR await_id IN (FROM delayed)"""
    )
    trace.connection.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE lane_of AS
        SELECT task_id FROM shown JOIN "await" USING (await_id, task_id) GROUP BY task_id
         ORDER BY sum(total_ns) DESC LIMIT {MOST_TASKS}"""
    )
    rows = trace.rows(
        f"""
        SELECT a.task_id, a.task_name, a.coroutine, a.await_id,
               s.stage AS kind, s.start_ns, s.end_ns, a."where" AS name
          FROM ({STAGE_SPANS}) s JOIN shown USING (await_id)
          JOIN "await" a USING (await_id) JOIN lane_of ON lane_of.task_id = a.task_id
         ORDER BY a.task_id, s.start_ns"""
    )
    by_task: dict[int, list[Row]] = {}
    for row in rows:
        by_task.setdefault(row["task_id"], []).append(row)
    for task_id, mine in by_task.items():
        title = f"task {mine[0]['task_name'] or mine[0]['coroutine'] or task_id}"
        lanes.add(("task", task_id), title, mine)
    omitted = []
    awaits = len({row["await_id"] for row in rows})
    if awaits < count["n"]:
        omitted.append(
            f"{awaits:,} of {count['n']:,} awaits: the slowest, those that a long hold delayed most"
            " and a sample"
        )
    (tasks,) = trace.rows('SELECT count(DISTINCT task_id) AS n FROM "await"')
    if tasks["n"] > MOST_TASKS:
        omitted.append(f"{MOST_TASKS} of {tasks['n']:,} tasks: those that waited longest")
    return omitted


def _workers(trace: Trace, lanes: Lanes) -> list[str]:
    return _sampled(
        trace,
        lanes,
        "worker",
        "works of executors",
        "SELECT tid AS lane, 'worker thread ' || tid AS title, begin_ns AS start_ns, end_ns,"
        " 'work' AS kind, function AS name FROM work_total WHERE tid IS NOT NULL AND end_ns > 0",
    )


def _cpus(trace: Trace, lanes: Lanes) -> list[str]:
    return _sampled(
        trace,
        lanes,
        "CPU",
        "interrupts, softirqs and packets",
        f"""
        SELECT cpu AS lane, 'CPU ' || cpu || ' interrupts' AS title, start_ns, end_ns, kind, name
          FROM (
            SELECT cpu, start_ns, end_ns, 'softirq' AS kind, 'NET_RX' AS name FROM ({SOFTIRQS})
            UNION ALL
            SELECT cpu, start_ns, end_ns, 'interrupt', 'irq ' || irq FROM ({HANDLERS})
            UNION ALL
            SELECT cpu, ts_ns, ts_ns, 'packet', len_bytes || ' bytes' FROM receive)""",
    )


def _others(trace: Trace, lanes: Lanes) -> list[str]:
    """Add the threads without a loop: the server's processes, helpers; when they were on a CPU."""
    return _sampled(
        trace,
        lanes,
        "thread",
        "stretches of other threads on a CPU",
        f"""
        SELECT tid AS lane, comm || ' ' || tid AS title, start_ns, end_ns, 'running' AS kind,
               'on CPU ' || cpu AS name
          FROM ({ON_CPU}) JOIN ({THREAD_NAMES}) USING (tid)
         WHERE tid NOT IN (SELECT tid FROM step)""",
    )
