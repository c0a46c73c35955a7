"""Which line a hold was in: by the samples that were taken while it lasted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np

if TYPE_CHECKING:
    from tracer.correlate.index import Ints
    from tracer.store.layout import TraceFolder


def lines_of(folder: TraceFolder, tid: Ints, start: Ints, end: Ints) -> dict[str, Any]:
    """Return where each interval of a thread was most often, by the clock.

    Args:
        folder: the trace.
        tid: thread of each interval.
        start: its begin, ns.
        end: its end, ns.

    Returns:
        where, leaf, chain: of the samples at the commonest `where` the one with the commonest
        leaf, "" without a sample; chain's frames are separated by newlines.
        c_function, c_function_from: what it called then, and how that is known, or why not.
        samples: how many there are.

    """
    hold = {"hold": np.arange(len(tid)), "tid": tid, "start": start, "over": end}  # noqa: F841
    found = duckdb.execute(
        f"""
        WITH sample AS (  -- a trace of before has no c_function
          SELECT * FROM read_parquet({folder.table_sql("sample")})
          UNION ALL BY NAME SELECT NULL::VARCHAR AS c_function WHERE false),
        hit AS (
          SELECT hold, s."where", s.leaf, array_to_string(s.chain, chr(10)) AS chain, s.collecting,
                 s.c_function, count(*) OVER (PARTITION BY hold, s."where") AS here,
                 count(*) OVER (PARTITION BY hold, s."where", s.leaf) AS there,
                 count(*) OVER (PARTITION BY hold, s."where", s.leaf, s.c_function) AS inside,
                 s.ts_ns
            FROM hold JOIN sample s
              ON s.tid = hold.tid AND s.ts_ns >= hold.start AND s.ts_ns < hold.over),
        best AS (
          SELECT hold, count(*) AS samples, 2 * count_if(collecting) > count(*) AS gc,
                 arg_max(hit, (here, there, inside, -ts_ns)) AS one FROM hit GROUP BY hold)
        SELECT coalesce(one."where", '') AS "where", coalesce(one.leaf, '') AS leaf,
               coalesce(one.chain, '') AS chain, coalesce(samples, 0) AS samples,
               CASE WHEN gc THEN 'gc' ELSE coalesce(one.c_function, '') END AS c_function,
               CASE WHEN samples IS NULL THEN 'not_sampled' WHEN gc THEN 'sampled'
                    WHEN one.c_function IS NULL THEN 'not_known'
                    WHEN one.c_function = '' THEN 'none_called' ELSE 'sampled'
                END AS c_function_from
          FROM hold LEFT JOIN best USING (hold) ORDER BY hold"""
    ).fetchnumpy()
    return {
        name: np.array(values.tolist(), np.int64 if name == "samples" else object)
        for name, values in found.items()
    }
