"""What stands out in a trace: each finding with its numbers, its threshold and its evidence.

A finding is a measurement against a threshold, never an opinion; what cannot be proven from
outside (may these two queries run together?) is called a candidate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracer.report.blocking import culprit, culprits
from tracer.report.page.connections import connects, retransmits, set_ups
from tracer.report.page.finding import SHOWN, Finding, awaits, finding, ms, times
from tracer.report.text import short_place
from tracer.system.syscalls import NUMBER, RECVS

if TYPE_CHECKING:
    from collections.abc import Callable

    from tracer.correlate.trace import Row, Trace

HELD_SHARE = 0.05  # of all await time
WAITED_SHARE = 0.10
OFF_CPU_SHARE = 0.10
REPEATED = 10  # equal queries in a row of one task
TOGETHER = 5  # pairs of awaits from the same two lines
HIDDEN_RECEIVES = 100
ALONE_NS = 100_000_000


def findings(trace: Trace, holds: list[Row]) -> list[Finding]:
    """Return what stands out, the costliest first.

    Args:
        trace: the trace.
        holds: rows of `blocking`.

    Returns:
        title, text, threshold (in words), cost_ns (time at stake), await_id (an example, or None)
        and where (a source line, or None).

    """
    (total,) = trace.rows(
        'SELECT coalesce(sum(total_ns), 0)::BIGINT AS ns FROM "await" WHERE task_id IS NOT NULL'
    )
    found: list[Finding] = _held(holds, total["ns"])
    looks: tuple[Callable[[Trace, int], list[Finding]], ...] = (
        _in_line,
        _off_cpu,
        _repeated,
        _together,
        connects,
        set_ups,
        _alone,
        retransmits,
        _hidden_calls,
    )
    for look in looks:
        found += look(trace, total["ns"])
    return sorted(found, key=lambda one: -one["cost_ns"])


def _held(holds: list[Row], total_ns: int) -> list[Finding]:
    guilty = [
        one
        for one in culprits(holds)
        if one["cause"] not in ("preempted", "throttled")  # not the program's doing: _off_cpu
        and one["delayed_ns"] > 0
        and one["delayed_ns"] >= HELD_SHARE * total_ns
    ]
    guilty.sort(key=lambda one: -one["delayed_ns"])
    found = []
    for one in guilty[:SHOWN]:
        who = one["culprit"] or "a callback"
        mine = (h for h in holds if (culprit(h), h["cause"]) == (one["culprit"], one["cause"]))
        worst = max(mine, key=lambda hold: hold["delayed_ns"])
        found.append(
            finding(
                f"The loop was held by {short_place(who)}",
                f"{times(one['count'])}, {ms(one['dur_ns'])} in all, at most"
                f" {ms(one['max_ns'])} ({one['cause']}): {awaits(one['delayed_awaits'])} waited"
                f" {ms(one['delayed_ns'])} for it.",
                f"delays of at least {HELD_SHARE:.0%} of all await time",
                one["delayed_ns"],
                await_id=worst["waited"][0]["await_id"],
                where=one["culprit"],
            )
        )
    return found


def _in_line(trace: Trace, total_ns: int) -> list[Finding]:
    rows = trace.rows(
        'SELECT "where", kind, leaf, count(*) AS count, sum(total_ns)::BIGINT AS ns,'
        ' max(total_ns) AS max_ns, arg_max(await_id, total_ns) AS await_id FROM "await"'
        " WHERE task_id IS NOT NULL AND kind IN ('queue', 'lock') GROUP BY ALL"
        " HAVING sum(total_ns) >= $share * $total AND max(total_ns) > 0 ORDER BY ns DESC LIMIT $n",
        share=WAITED_SHARE,
        total=total_ns,
        n=SHOWN,
    )
    return [
        finding(
            f"Tasks wait in line at {short_place(row['where'])}",
            f"{awaits(row['count'])} on a {row['kind']} ({row['leaf']}), {ms(row['ns'])} in all,"
            f" at most {ms(row['max_ns'])}: a pool that is too small waits like this, and so"
            " does a worker that has nothing to do.",
            f"at least {WAITED_SHARE:.0%} of all await time",
            row["ns"],
            await_id=row["await_id"],
            where=row["where"],
        )
        for row in rows
    ]


def _off_cpu(trace: Trace, total_ns: int) -> list[Finding]:
    words = {
        "runq_ns": ("The run queue", "the loop's thread was runnable, but others had the CPU"),
        "throttled_ns": ("The CPU quota", "the cgroup's CPU quota was used up"),
        "gil_ns": ("The GIL", "another thread of the process held the GIL"),
    }
    found = []
    for column, (who, why) in words.items():
        (row,) = trace.rows(
            f"SELECT coalesce(sum({column}), 0)::BIGINT AS ns, arg_max(await_id, {column}) AS worst"
            ' FROM "await" WHERE task_id IS NOT NULL'
        )
        if row["ns"] and row["ns"] >= OFF_CPU_SHARE * total_ns:
            found.append(
                finding(
                    f"{who} took {row['ns'] / total_ns:.0%} of all await time",
                    f"{ms(row['ns'])} in which an answer was there and {why}.",
                    f"at least {OFF_CPU_SHARE:.0%} of all await time",
                    row["ns"],
                    await_id=row["worst"],
                )
            )
    return found


# consecutive awaits of one task on sockets
_PAIRS = """
    SELECT task_id, "where", sent_bytes, total_ns, await_id, sock, start_ns,
           lag("where") OVER w AS before, lag(sent_bytes) OVER w AS sent_before,
           lag(sock) OVER w AS sock_before, lag(total_ns) OVER w AS total_before
      FROM "await" WHERE task_id IS NOT NULL AND kind = 'socket' AND round_trips > 0
    WINDOW w AS (PARTITION BY task_id ORDER BY start_ns)"""


def _repeated(trace: Trace, _total_ns: int) -> list[Finding]:
    rows = trace.rows(
        f"""
        WITH pair AS ({_PAIRS}),
        run AS (SELECT *, sum(CASE WHEN "where" = before AND sent_bytes = sent_before THEN 0 ELSE 1
                 END) OVER (PARTITION BY task_id ORDER BY start_ns) AS number FROM pair),
        streak AS (
          SELECT task_id, number, any_value("where") AS "where", count(*) AS length,
                 any_value(sent_bytes) AS bytes, sum(total_ns)::BIGINT AS ns,
                 min(await_id) AS await_id
            FROM run WHERE sent_bytes > 0 GROUP BY task_id, number HAVING count(*) >= $least)
        SELECT "where", bytes, count(*) AS tasks, max(length) AS longest,
               sum(length)::BIGINT AS all_, sum(ns)::BIGINT AS ns, arg_max(await_id, ns) AS await_id
          FROM streak GROUP BY "where", bytes ORDER BY ns DESC LIMIT $n""",
        least=REPEATED,
        n=SHOWN,
    )
    return [
        finding(
            f"Candidate for one query instead of many: {short_place(row['where'])}",
            f"{row['tasks']} times a task sent {row['bytes']} bytes from this line again and"
            f" again, up to {row['longest']} in a row; {row['all_']} round trips,"
            f" {ms(row['ns'])} in all.",
            f"at least {REPEATED} in a row from one line, with equal sizes",
            row["ns"],
            await_id=row["await_id"],
            where=row["where"],
        )
        for row in rows
    ]


def _together(trace: Trace, _total_ns: int) -> list[Finding]:
    rows = trace.rows(
        f"""
        SELECT before, "where", count(*) AS count, arg_max(await_id, total_ns) AS await_id,
               sum(least(total_ns, total_before))::BIGINT AS ns FROM ({_PAIRS})
         WHERE before <> "where" AND sock <> sock_before GROUP BY before, "where"
        HAVING count(*) >= $least ORDER BY ns DESC LIMIT $n""",
        least=TOGETHER,
        n=SHOWN,
    )
    return [
        finding(
            f"Candidate for gather: {short_place(row['before'])} and {short_place(row['where'])}",
            f"{row['count']} times a task awaited one and then the other, over different"
            f" connections; together they could save up to {ms(row['ns'])}, if the second does not"
            " need the first's result.",
            f"at least {TOGETHER} pairs on two connections",
            row["ns"],
            await_id=row["await_id"],
            where=row["where"],
        )
        for row in rows
    ]


def _alone(trace: Trace, _total_ns: int) -> list[Finding]:
    rows = trace.rows(
        "SELECT task_name, coroutine, cpu_ns FROM task_total WHERE awaits = 0 AND cpu_ns >= $least"
        " ORDER BY cpu_ns DESC LIMIT $n",
        least=ALONE_NS,
        n=SHOWN,
    )
    return [
        finding(
            f"Task {row['task_name']} never yields",
            f"{row['coroutine']} ran {ms(row['cpu_ns'])} on the loop without one suspension.",
            f"at least {ms(ALONE_NS)} on a CPU",
            row["cpu_ns"],
        )
        for row in rows
    ]


def _hidden_calls(trace: Trace, _total_ns: int) -> list[Finding]:
    (row,) = trace.rows(
        "SELECT count(*) FILTER (list_contains($memory, nr)) AS hidden,"
        " count(*) FILTER (list_contains($recvs, nr) AND sock > 0 AND ret > 0) AS receives,"
        " coalesce(sum(dur_ns) FILTER (list_contains($memory, nr)), 0)::BIGINT AS ns"
        " FROM syscall WHERE tid IN (SELECT tid FROM step)",
        memory=[NUMBER[name] for name in ("mmap", "munmap", "mremap")],
        recvs=sorted(RECVS),
    )
    if row["receives"] < HIDDEN_RECEIVES or row["hidden"] < row["receives"]:
        return []
    return [
        finding(
            f"{row['hidden'] / row['receives']:.1f} hidden system calls for each receive",
            f"{row['hidden']:,} calls of mmap, munmap and mremap beside {row['receives']:,}"
            f" receives in the loops' threads, {ms(row['ns'])} in all: asyncio's receive buffer is"
            " mapped anew each time. MALLOC_MMAP_THRESHOLD_=1048576 in the environment keeps it.",
            f"as many as receives, of which at least {HIDDEN_RECEIVES}",
            row["ns"],
        )
    ]
