"""What a timeline of a whole trace shows: tracks, slices, arrows between them, counters.

Perfetto's and Chrome's writers say the same in their formats. All times are CLOCK_MONOTONIC ns.
Rows come from DuckDB in batches: memory does not grow with the trace.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any, NamedTuple

from tracer.report.info import targets
from tracer.report.intervals import HANDLERS, ON_CPU, SOFTIRQS, STAGE_SPANS, THREAD_NAMES
from tracer.system.syscalls import name_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tracer.correlate.trace import Row, Trace

PROCESS, THREAD, TASK, CPU, INTERRUPTS, LOOSE, READY, LAG, LOST, SETUP = range(1, 11)
_BATCH = 1 << 14
_PACKET_FLOW = 1 << 62  # arrows of packets; those of wakings are agent << 32 | run


class Track(NamedTuple):
    """A line of the timeline. `number` is a pid, tid, task_id or CPU; `parent` a track's id."""

    id: int
    kind: int
    name: str
    number: int
    tgid: int = 0
    parent: int = 0


class Slice(NamedTuple):
    """Something on a track from `start_ns` to `end_ns`; an instant if they are equal.

    Arrows have ids: those that leave here, go on here, and end here.
    """

    track: int
    name: str
    category: str
    start_ns: int
    end_ns: int
    facts: dict[str, Any]
    leave: Sequence[int] = ()
    pass_on: Sequence[int] = ()
    arrive: Sequence[int] = ()


class Sample(NamedTuple):
    """A counter's value from a moment on."""

    track: int
    ts_ns: int
    value: float


def track_id(kind: int, number: int, lane: int = 0) -> int:
    """Return the id of a track, unique in a trace."""
    return kind << 56 | lane << 40 | number


def tracks(trace: Trace) -> Iterator[Track]:
    """Return all tracks, parents first, but for those of loose awaits."""
    process = {}
    for target in targets(trace):
        tgid = target["tgid"]
        process[tgid] = track_id(PROCESS, tgid)
        words = target["argv"] or [target["exe"] or "?"]
        yield Track(process[tgid], PROCESS, " ".join(words), tgid, tgid)
    yield from _thread_tracks(trace, process)
    connecting = {
        row["task_id"]
        for row in trace.rows(
            'SELECT DISTINCT "await".task_id FROM setup JOIN "await" USING (await_id)'
        )
    }
    for task in trace.rows("SELECT * FROM task_total ORDER BY task_id"):
        number, name = task["task_id"], task["task_name"] or task["coroutine"]
        parent = process.get(task["tgid"], 0)
        own = Track(
            track_id(TASK, number), TASK, f"task {name or number}", number, task["tgid"], parent
        )
        yield own
        if number in connecting:
            name, its = "connection set-up", track_id(SETUP, number)
            yield Track(its, SETUP, name, number, task["tgid"], own.id)
    yield from _cpu_tracks(trace)
    for loop in trace.rows("SELECT DISTINCT tid FROM step ORDER BY tid"):
        tid = loop["tid"]
        yield Track(track_id(READY, tid), READY, f"ready queue of thread {tid}", tid)
        yield Track(track_id(LAG, tid), LAG, f"loop lag of thread {tid}, ns", tid)
    yield Track(track_id(LOST, 0), LOST, "events lost", 0)


def _thread_tracks(trace: Trace, process: dict[int, int]) -> Iterator[Track]:
    rows = trace.rows(
        "SELECT tid, arg_max(tgid, ts_ns) AS tgid, arg_max(comm, ts_ns) AS comm"
        " FROM thread GROUP BY tid ORDER BY tid"
    )
    for row in rows:
        tid, tgid = row["tid"], row["tgid"]
        parent = process.get(tgid, 0)
        yield Track(track_id(THREAD, tid), THREAD, row["comm"], tid, tgid, parent)


def _cpu_tracks(trace: Trace) -> Iterator[Track]:
    cpus = trace.rows(
        "SELECT DISTINCT cpu FROM (SELECT in_cpu AS cpu FROM off_cpu UNION SELECT cpu FROM receive"
        " UNION SELECT cpu FROM napi_poll UNION SELECT cpu FROM tx_interrupt) ORDER BY cpu"
    )
    for row in cpus:
        cpu = row["cpu"]
        yield Track(track_id(CPU, cpu), CPU, f"CPU {cpu}", cpu)
        yield Track(track_id(INTERRUPTS, cpu), INTERRUPTS, f"CPU {cpu}: interrupts", cpu)


def slices(trace: Trace) -> Iterator[Slice]:
    """Return all slices: track by track, in order of start, an outer one before its inner ones."""
    yield from nested(_on_threads(trace))
    yield from nested(_on_tasks(trace))
    yield from nested(_connecting(trace))
    yield from nested(_running(trace))
    yield from nested(_interrupts(trace))


def nested(found: Iterable[Slice]) -> Iterator[Slice]:
    """Cut what would reach out of the slice around it: viewers take a track's slices as a tree."""
    around: list[Slice] = []
    for one in found:
        while around and (around[-1].track != one.track or around[-1].end_ns <= one.start_ns):
            around.pop()
        kept = one
        if around and one.end_ns > around[-1].end_ns:
            facts = {**one.facts, "end_ns": one.end_ns}
            kept = one._replace(end_ns=around[-1].end_ns, facts=facts)
        yield kept
        if kept.end_ns > kept.start_ns:
            around.append(kept)


def _stream(trace: Trace, sql: str) -> Iterator[tuple[Any, ...]]:
    cursor = trace.connection.cursor()
    cursor.execute(sql)
    while rows := cursor.fetchmany(_BATCH):
        yield from rows


def _on_threads(trace: Trace) -> Iterator[Slice]:
    """Steps, callbacks and system calls of every thread."""
    found = _stream(
        trace,
        f"""
        WITH run AS (
          SELECT id AS step_id, NULL AS callback_id, agent, run, waker_run, tid, ts_ns, end_ns,
                 'step' AS category, task, where_str AS where_id, NULL AS name_id FROM step
          UNION ALL
          SELECT NULL, id, agent, run, waker_run, tid, ts_ns, end_ns, 'callback', 0, NULL, name_str
            FROM callback),
        wakes AS (
          SELECT agent, waker_run AS run, list((agent << 32) | run) AS woken FROM run
           WHERE waker_run > 0 GROUP BY ALL),
        packet AS (
          SELECT next_step_id AS step_id, callback_id,
                 {_PACKET_FLOW} | (await_id << 16) | trip AS arrow
            FROM leg WHERE rx_id IS NOT NULL),
        to_step AS (SELECT step_id, list(arrow) AS arrows FROM packet GROUP BY step_id),
        to_callback AS (SELECT callback_id, list(arrow) AS arrows FROM packet GROUP BY callback_id)
        SELECT r.tid, r.ts_ns, r.end_ns, category,
               coalesce(n.text, nullif(t.task_name, ''), nullif(t.coroutine, ''), 'step') AS name,
               t.task_id, w.text, NULL, NULL, NULL,
               coalesce(wakes.woken, []), coalesce(c.arrows, []),
               list_concat(coalesce(s.arrows, []), CASE WHEN r.waker_run > 0
                 THEN [(r.agent << 32) | r.run] ELSE [] END)
          FROM run r LEFT JOIN task_total t ON t.agent = r.agent AND t.serial = r.task
          LEFT JOIN string n ON n.agent = r.agent AND n.id = r.name_id
          LEFT JOIN string w ON w.agent = r.agent AND w.id = r.where_id
          LEFT JOIN wakes ON wakes.agent = r.agent AND wakes.run = r.run
          LEFT JOIN to_step s ON s.step_id = r.step_id
          LEFT JOIN to_callback c ON c.callback_id = r.callback_id
        UNION ALL
        SELECT tid, ts_ns, ts_ns + dur_ns, 'syscall', NULL, NULL, NULL, nr, fd, ret, [], [], []
          FROM syscall
        UNION ALL
        SELECT tid, ts_ns, ts_ns + dur_ns, 'syscall', NULL, NULL, NULL, nr, epfd, ret, [], [], []
          FROM epoll_wait
        ORDER BY 1, 2, 3 DESC""",
    )
    for tid, start, end, category, name, task_id, where, nr, fd, ret, *arrows in found:
        facts: dict[str, Any] = {}
        if category == "syscall":
            facts = {"fd": fd, "ret": ret}
        elif task_id is not None:
            facts = {"task_id": task_id, "where": where or ""}
        yield Slice(
            track_id(THREAD, tid),
            name_of(nr) if name is None else name,
            category,
            start,
            end,
            facts,
            *arrows,
        )


def _on_tasks(trace: Trace) -> Iterator[Slice]:
    """Awaits with their stages inside; those of no task on lanes of their process."""
    found = _stream(
        trace,
        f"""
        SELECT task_id, start_ns, end_ns, 0 AS depth, kind, "where", await_id
          FROM "await" WHERE task_id IS NOT NULL
        UNION ALL
        SELECT task_id, s.start_ns, s.end_ns, 1, s.stage, NULL, await_id
          FROM ({STAGE_SPANS}) s JOIN "await" USING (await_id) WHERE task_id IS NOT NULL
        ORDER BY 1, 2, 4, 3 DESC""",
    )
    for task_id, start, end, depth, name, where, await_id in found:
        track = track_id(TASK, task_id)
        facts = {"await_id": await_id}
        if depth:
            yield Slice(track, name, "stage", start, end, facts)
        else:
            facts["where"] = where
            title = f"{name} {where.rsplit('/', 1)[-1]}" if where else name
            yield Slice(track, title, "await", start, end, facts)


def _connecting(trace: Trace) -> Iterator[Slice]:
    """Parts of the set-up of connections: a line under the awaits', their stages cross them.

    One whose end is not known is an instant.
    """
    found = _stream(
        trace,
        """
        SELECT "await".task_id, setup.start_ns, setup.start_ns + coalesce(setup.dur_ns, 0),
               what, setup.outcome, setup.task_id, await_id
          FROM setup JOIN "await" USING (await_id) ORDER BY 1, 2, 3 DESC, await_id""",
    )
    for task_id, start, end, what, outcome, by, await_id in found:
        facts = {"await_id": await_id, "by_task": by, "outcome": outcome}
        yield Slice(track_id(SETUP, task_id), what, "setup", start, end, facts)


def loose(trace: Trace) -> Iterator[tuple[Track | None, Slice]]:
    """Return the awaits without a task, each with its track when that is new: they may overlap."""
    free: dict[int, list[tuple[int, int]]] = {}
    lanes: dict[int, int] = {}
    found = _stream(
        trace,
        'SELECT tgid, start_ns, end_ns, kind, await_id, fds FROM "await" WHERE task_id IS NULL'
        " ORDER BY start_ns, await_id",
    )
    for tgid, start, end, kind, await_id, fds in found:
        ends = free.setdefault(tgid, [])
        fresh = not ends or ends[0][0] > start
        if fresh:
            lane = lanes[tgid] = lanes.get(tgid, 0) + 1
            heapq.heappush(ends, (end, lane))
        else:
            lane = ends[0][1]
            heapq.heapreplace(ends, (end, lane))
        track = track_id(LOOSE, tgid, lane)
        parent = track_id(PROCESS, tgid)
        made = Track(track, LOOSE, "no task", lane, tgid, parent) if fresh else None
        facts = {"await_id": await_id, "fds": ",".join(map(str, fds or []))}
        yield made, Slice(track, kind, "await", start, end, facts)


def _running(trace: Trace) -> Iterator[Slice]:
    """Who was on each CPU: from one stretch off it to the next."""
    found = _stream(
        trace,
        f"""
        SELECT cpu, start_ns, end_ns, comm, tid
          FROM ({ON_CPU}) LEFT JOIN ({THREAD_NAMES}) USING (tid) ORDER BY 1, 2, 3 DESC""",
    )
    for cpu, start, end, comm, tid in found:
        yield Slice(track_id(CPU, cpu), comm or str(tid), "running", start, end, {"tid": tid})


def _interrupts(trace: Trace) -> Iterator[Slice]:
    """Interrupts, softirqs, and the moments at which packets made a socket readable."""
    found = _stream(
        trace,
        f"""
        SELECT cpu, start_ns, end_ns, 'irq ' || irq AS name, 'interrupt' AS category,
               NULL AS bytes, NULL AS sock, [] AS arrows FROM ({HANDLERS})
        UNION ALL
        SELECT cpu, ts_ns, ts_ns + handler_ns, 'irq ' || irq, 'interrupt', NULL, NULL, []
          FROM tx_interrupt
        UNION ALL
        SELECT cpu, start_ns, end_ns, 'NET_RX', 'softirq', NULL, NULL, [] FROM ({SOFTIRQS})
        UNION ALL
        SELECT cpu, ts_ns, ts_ns, 'packet', 'packet', len_bytes, sock, coalesce(arrows, [])
          FROM receive LEFT JOIN (
            SELECT rx_id AS id, list({_PACKET_FLOW} | (await_id << 16) | trip) AS arrows
              FROM leg WHERE rx_id IS NOT NULL GROUP BY rx_id) USING (id)
        ORDER BY 1, 2, 3 DESC""",
    )
    for cpu, start, end, name, category, length, sock, arrows in found:
        facts = {} if length is None else {"bytes": length, "sock": sock}
        yield Slice(track_id(INTERRUPTS, cpu), name, category, start, end, facts, arrows)


def samples(trace: Trace) -> Iterator[Sample]:
    """Return the counters: ready queue and lag of each loop's thread, events lost."""
    queue = """
        WITH run AS (SELECT tid, ts_ns, wake_ns FROM step UNION ALL
                     SELECT tid, ts_ns, wake_ns FROM callback),
        ready AS (SELECT * FROM run WHERE wake_ns > 0 AND wake_ns <= ts_ns
                   AND tid IN (SELECT tid FROM step))"""
    depth = _stream(
        trace,
        f"""{queue},
        change AS (SELECT tid, wake_ns AS ts_ns, 1 AS step FROM ready UNION ALL
                   SELECT tid, ts_ns, -1 FROM ready)
        SELECT DISTINCT tid, ts_ns, sum(step) OVER (PARTITION BY tid ORDER BY ts_ns)::BIGINT
          FROM change ORDER BY tid, ts_ns""",
    )
    for tid, ts, value in depth:
        yield Sample(track_id(READY, tid), ts, value)
    lag = _stream(trace, f"{queue} SELECT tid, ts_ns, ts_ns - wake_ns FROM ready ORDER BY 1, 2")
    for tid, ts, value in lag:
        yield Sample(track_id(LAG, tid), ts, value)
    lost: list[Row] = trace.rows(
        "SELECT ts_ns, sum(sum(lost)) OVER (ORDER BY ts_ns)::BIGINT AS lost"
        " FROM loss GROUP BY ts_ns ORDER BY ts_ns"
    )
    for row in lost:
        yield Sample(track_id(LOST, 0), row["ts_ns"], row["lost"])
