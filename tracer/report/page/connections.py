"""What stands out in how connections are opened, and in what the network did to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracer.report.page.finding import SHOWN, Finding, finding, ms
from tracer.report.text import short_place

if TYPE_CHECKING:
    from tracer.correlate.trace import Trace

CONNECTS = 20
CONNECTS_PER_TASK = 0.8
SET_UP = 10  # awaits of one line that open a connection
SET_UP_OFTEN = 0.8  # of the line's awaits
SET_UP_SHARE = 0.3  # of the line's time


def connects(trace: Trace, _total_ns: int) -> list[Finding]:
    """Find that tasks do not share connections."""
    (row,) = trace.rows(
        "SELECT count(DISTINCT s.sock) AS connects, (SELECT count(DISTINCT task_id) FROM"
        " \"await\" WHERE kind = 'socket' AND round_trips > 0) AS tasks FROM socket_state s"
        " WHERE oldstate = 2 AND newstate = 1"
        ' AND sock IN (SELECT sock FROM "await" WHERE task_id IS NOT NULL)'
    )
    if row["connects"] < CONNECTS or row["connects"] < CONNECTS_PER_TASK * row["tasks"]:
        return []
    return [
        finding(
            "A connection is opened for almost every task",
            f"{row['connects']} connections were opened by {row['tasks']} tasks that use sockets.",
            f"at least {CONNECTS} connections, {CONNECTS_PER_TASK} for each task",
            0,
        )
    ]


# What each await spent on its own connections: parts that run at once count once, and what a task
# did for another one's await counts there.
_SET_UP = """
    WITH own AS (
      SELECT await_id, what, start_ns, start_ns + coalesce(dur_ns, 0) AS end_ns
        FROM setup JOIN (SELECT await_id, total_ns FROM "await") USING (await_id)
     QUALIFY row_number() OVER (PARTITION BY task_id, what, start_ns
                                ORDER BY total_ns DESC, await_id) = 1),
    part AS (
      SELECT *, max(end_ns) OVER (PARTITION BY await_id ORDER BY start_ns, end_ns
                ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before FROM own)
    SELECT await_id, sum(greatest(end_ns - greatest(start_ns, coalesce(before, 0)), 0)) AS ns
      FROM part GROUP BY await_id HAVING count(*) FILTER (what = 'connect') > 0"""


def set_ups(trace: Trace, _total_ns: int) -> list[Finding]:
    """Find lines whose time goes into opening a connection each time."""
    rows = trace.rows(
        f"""
        SELECT "where", count(*) AS awaits, count(ns) AS opened, coalesce(sum(ns), 0)::BIGINT AS ns,
               sum(total_ns)::BIGINT AS total_ns, arg_max(await_id, ns) AS await_id
          FROM "await" LEFT JOIN ({_SET_UP}) USING (await_id) WHERE task_id IS NOT NULL
         GROUP BY "where" HAVING opened >= $least AND opened >= $often * awaits
            AND ns >= $share * total_ns ORDER BY ns DESC LIMIT $n""",
        least=SET_UP,
        often=SET_UP_OFTEN,
        share=SET_UP_SHARE,
        n=SHOWN,
    )
    return [
        finding(
            f"A connection is opened each time at {short_place(row['where'])}",
            f"{row['opened']} of {row['awaits']} awaits open one, which takes on average"
            f" {ms(row['ns'] / row['opened'])} of {ms(row['total_ns'] / row['awaits'])}; a"
            " connection that is kept needs it once.",
            f"at least {SET_UP} awaits, {SET_UP_OFTEN:.0%} of the line's, and"
            f" {SET_UP_SHARE:.0%} of their time",
            row["ns"],
            await_id=row["await_id"],
            where=row["where"],
        )
        for row in rows
    ]


def retransmits(trace: Trace, _total_ns: int) -> list[Finding]:
    """Find what had to be sent again."""
    (row,) = trace.rows("SELECT count(*) AS count, count(DISTINCT sock) AS socks FROM retransmit")
    if not row["count"]:
        return []
    (during,) = trace.rows(
        'SELECT arg_max(await_id, total_ns) AS await_id FROM "await" a JOIN retransmit r'
        " ON r.sock = a.sock AND r.ts_ns BETWEEN a.start_ns AND a.end_ns"
        " WHERE a.task_id IS NOT NULL"
    )
    sent = "1 packet was" if row["count"] == 1 else f"{row['count']} packets were"
    on = "1 connection" if row["socks"] == 1 else f"{row['socks']} connections"
    return [
        finding(
            f"{sent} sent again",
            f"on {on}: the network lost or delayed what was sent.",
            "any",
            0,
            await_id=during["await_id"],
        )
    ]
