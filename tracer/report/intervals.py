"""Intervals that a timeline draws, as SQL: what the page and the exports ask the same tables for.

Each has start_ns and end_ns, CLOCK_MONOTONIC ns.
"""

from __future__ import annotations

from tracer.correlate.words import STAGES

_EACH_STAGE = ", ".join(
    f"{{'stage': '{name}', 'at': t{cut}_ns, 'ns': {name}_ns}}" for cut, name in enumerate(STAGES)
)
# await_id, stage: the stages of all trips that are known and took time
STAGE_SPANS = f"""
    SELECT await_id, s.stage AS stage, s.at AS start_ns, s.at + s.ns AS end_ns
      FROM (SELECT await_id, unnest([{_EACH_STAGE}]) AS s FROM leg) WHERE s.ns > 0"""
# tid, cpu: a thread on a CPU, from one stretch off it to the next (flags: FLAG_OPEN of record.h)
ON_CPU = """
    SELECT * FROM (
      SELECT tid, in_cpu AS cpu, ts_ns + dur_ns AS start_ns,
             lead(ts_ns) OVER (PARTITION BY tid ORDER BY ts_ns) AS end_ns
        FROM off_cpu WHERE flags & 8 = 0)
     WHERE end_ns > start_ns"""
# cpu, irq: handlers of interrupts that brought packets
HANDLERS = """
    SELECT DISTINCT cpu, irq, irq_ns AS start_ns, irq_ns + handler_ns AS end_ns
      FROM napi_poll WHERE irq_ns > 0"""
# cpu: NET_RX softirqs up to their last poll or packet; their own end is not recorded
SOFTIRQS = """
    SELECT cpu, softirq_ns AS start_ns, max(ts_ns) AS end_ns FROM (
      SELECT cpu, softirq_ns, ts_ns FROM napi_poll WHERE softirq_ns > 0 UNION ALL
      SELECT cpu, ts_ns - softirq_age_ns, ts_ns FROM receive WHERE softirq_age_ns > 0)
     GROUP BY cpu, softirq_ns"""
# tid: the last name of each thread
THREAD_NAMES = "SELECT tid, arg_max(comm, ts_ns) AS comm FROM thread GROUP BY tid"
