"""The awaits as CSV, one a line: the columns of `awaits --csv` but for a worker's times."""

from __future__ import annotations

import csv
import io
from typing import IO, TYPE_CHECKING

from tracer.report.awaits import await_rows
from tracer.report.flat import flat_row

if TYPE_CHECKING:
    from tracer.correlate.trace import Trace

_BATCH = 1 << 15


def write_csv(trace: Trace, out: IO[bytes]) -> int:
    """Write all awaits in order of time; return how many."""
    (last,) = trace.rows('SELECT coalesce(max(await_id), 0) AS id FROM "await"')
    text = io.TextIOWrapper(out, encoding="utf-8", newline="", write_through=True)
    writer, count = None, 0
    for first in range(1, last["id"] + 1, _BATCH):
        for row in await_rows(trace, between=(first, first + _BATCH)):
            del row["thread"]  # its keys differ by row; they are in the table work_total
            line = flat_row(row)
            if writer is None:
                writer = csv.DictWriter(text, list(line), lineterminator="\n")
                writer.writeheader()
            writer.writerow(line)
            count += 1
    text.detach()
    return count
