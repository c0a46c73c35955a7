"""Which threads had what a hold slept for: the GIL, or a lock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracer.correlate.lag import OFF_GIL
from tracer.system.syscalls import NUMBER

if TYPE_CHECKING:
    from tracer.correlate.trace import Row, Trace

_SLEEPS = """
  named AS (
    SELECT tid, max(tgid) AS tgid, arg_max(comm, ts_ns) AS comm FROM thread GROUP BY tid),
  sleep AS (
    SELECT tgid, o.tid, o.ts_ns, o.ts_ns + o.dur_ns AS end_ns, o.ts_ns + o.wake_ns AS woken_ns,
           waker_tid, why & $gil > 0 AS is_gil
      FROM off_cpu o JOIN named USING (tid) WHERE o.nr = $futex AND state <> 0),
  mine AS (
    SELECT hold_id, gil_ns, s.* FROM chosen c JOIN sleep s ON s.tid = c.tid
       AND s.ts_ns >= c.start_ns AND s.ts_ns < c.end_ns)"""

# who had the GIL when the sleeper was looked at: its share of all the waiting
_SAMPLED = f"""
WITH {_SLEEPS},
  seen AS (
    SELECT hold_id, gil_ns, holder_tid, holder_leaf FROM mine JOIN sample s ON s.tid = mine.tid
       AND s.ts_ns >= mine.ts_ns AND s.ts_ns < mine.end_ns
     WHERE is_gil AND holder_tid IS NOT NULL)
SELECT hold_id, 'gil' AS of, holder_tid AS tid, any_value(comm) AS thread,
       (gil_ns * count(*) / sum(count(*)) OVER (PARTITION BY hold_id))::BIGINT AS dur_ns,
       mode(holder_leaf) AS leaf
  FROM seen LEFT JOIN named ON named.tid = holder_tid
 GROUP BY hold_id, gil_ns, holder_tid ORDER BY hold_id, dur_ns DESC, holder_tid"""

# Who lets go of a lock wakes the sleeper; who lets go of the GIL wakes one of those who wait, and
# had it all the time unless it has waited for it meanwhile, too, or is the sleeper itself.
_WOKEN = f"""
WITH {_SLEEPS},
  handed AS (SELECT tgid, woken_ns, waker_tid FROM sleep WHERE is_gil AND waker_tid > 0),
  held AS (
    SELECT mine.*, h.waker_tid AS holder
      FROM mine ASOF JOIN handed h ON h.tgid = mine.tgid AND h.woken_ns >= mine.ts_ns
     WHERE is_gil
    UNION ALL
    SELECT *, waker_tid FROM mine WHERE NOT is_gil)
SELECT hold_id, if(is_gil, 'gil', 'lock') AS of, holder AS tid, any_value(comm) AS thread,
       sum(end_ns - ts_ns)::BIGINT AS dur_ns, NULL AS leaf
  FROM held LEFT JOIN named ON named.tid = holder
 WHERE holder NOT IN (0, held.tid) AND NOT EXISTS (
   FROM sleep w WHERE is_gil AND w.is_gil AND w.tid = holder
     AND w.ts_ns < held.end_ns AND w.end_ns > held.ts_ns)
 GROUP BY hold_id, of, holder ORDER BY hold_id, dur_ns DESC, holder"""


def holders(trace: Trace) -> list[Row]:
    """Return hold_id, of (gil, lock), tid, thread, dur_ns and leaf for the holds in `chosen`.

    For the GIL what the samples saw counts; a hold too short for any has those who woke somebody.
    """
    about = {"gil": OFF_GIL, "futex": NUMBER["futex"]}
    sampled = trace.rows(_SAMPLED, **about)
    known = {row["hold_id"] for row in sampled}
    woken = trace.rows(_WOKEN, **about)
    return sampled + [row for row in woken if row["of"] == "lock" or row["hold_id"] not in known]
