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
        samples: how many there are; collecting: in how many garbage was being collected.

    """
    hold = {"hold": np.arange(len(tid)), "tid": tid, "start": start, "over": end}  # noqa: F841
    found = duckdb.execute(
        f"""
        WITH hit AS (
          SELECT hold, s."where", s.leaf, array_to_string(s.chain, chr(10)) AS chain, s.collecting,
                 count(*) OVER (PARTITION BY hold, s."where") AS here,
                 count(*) OVER (PARTITION BY hold, s."where", s.leaf) AS there, s.ts_ns
            FROM hold JOIN read_parquet({folder.table_sql("sample")}) s
              ON s.tid = hold.tid AND s.ts_ns >= hold.start AND s.ts_ns < hold.over),
        best AS (
          SELECT hold, count(*) AS samples, count_if(collecting) AS collecting,
                 arg_max(hit, (here, there, -ts_ns)) AS one FROM hit GROUP BY hold)
        SELECT coalesce(one."where", '') AS "where", coalesce(one.leaf, '') AS leaf,
               coalesce(one.chain, '') AS chain, coalesce(samples, 0) AS samples,
               coalesce(best.collecting, 0) AS collecting
          FROM hold LEFT JOIN best USING (hold) ORDER BY hold"""
    ).fetchnumpy()
    texts = ("where", "leaf", "chain")
    return {
        name: np.array(values.tolist(), object if name in texts else np.int64)
        for name, values in found.items()
    }
