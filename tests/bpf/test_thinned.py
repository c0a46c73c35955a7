"""Losses made by hand: what is left says nothing that the whole recording does not say."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1]))
from thinning import Thinner, finished, record_raw
from tracing import load_lab

from tracer.correlate.events import Events
from tracer.correlate.picture import picture_of
from tracer.report.info import info_document

if TYPE_CHECKING:
    from tracer.correlate.trace import Trace

pytestmark = [pytest.mark.bpf, pytest.mark.slow]
APPS = {
    "streams": ("streams.py", "--tasks", "20", "--calls", "8"),
    "multiplex": ("multiplex.py",),
    "reader": ("multiplex.py", "--reader", "task"),
    "read_in_task": ("shapes.py", "read_in_task"),
    "write_only": ("shapes.py", "write_only"),
    "several_recvs": ("shapes.py", "several_recvs"),
}
# numbers of rows differ where rows are missing
NUMBERS = {"await_id", "task_id", "ended_id", "first_leg"}
Row = dict[str, Any]


@dataclass
class Whole:
    """A recording without losses: what its awaits are, and which call ended each suspension."""

    thinner: Thinner
    awaits: dict[tuple[int, int, int], Row]
    ends: dict[tuple[int, int], tuple[int, int, int]]


def by_place(trace: Trace) -> dict[tuple[int, int, int], Row]:
    """Return the awaits by thread, start and first suspension, without their numbers."""
    rows = trace.rows('SELECT *, task_id IS NULL AS loose FROM "await"')
    found = {
        (row["tid"], row["start_ns"], row["suspend_ns"] or -1): {
            name: value for name, value in row.items() if name not in NUMBERS
        }
        for row in rows
    }
    assert len(found) == len(rows)
    return found


@pytest.fixture(scope="module", params=[*APPS, pytest.param("pool", marks=pytest.mark.postgres)])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """Record an app once, and correlate a copy of the recording as it is."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "pool":
        pytest.importorskip("asyncpg")
        with load_lab().private_postgres("lo") as lab:
            raw = record_raw(folder / "raw", "pool.py", "--dsn", lab.dsn, "--calls", "5")
    else:
        raw = record_raw(folder / "raw", *APPS[request.param])
    shutil.copytree(raw, folder / "whole")
    trace = finished(folder / "whole")
    assert not any(kind["lost"] for kind in trace.manifest["events"].values())
    picture = picture_of(Events(trace.folder, trace.manifest))
    call, sus, wakes = picture.events["syscall"], picture.sus, picture.wakes
    ends = {
        (int(sus.tid[i]), int(sus.resume[i])): (
            int(wakes.by[i]),
            int(call["sock"][wakes.call[i]]),
            int(call["ts_ns"][wakes.call[i]]),
        )
        for i in range(sus.count)
        if wakes.call[i] >= 0
    }
    assert ends
    return Whole(Thinner(raw), by_place(trace), ends)


@pytest.mark.parametrize("seed", range(6))
def test_no_row_is_wrong(whole: Whole, seed: int, tmp_path: Path) -> None:
    """A complete row is the row of the whole recording, and no call ended another's await."""
    losing = {"kernel": seed % 3 != 0, "agents": seed % 3 != 1}
    trace = finished(whole.thinner.copy(tmp_path / "thin", seed, **losing))
    ended = trace.rows(
        'SELECT leg.tid, t8_ns, leg."by" AS how, syscall.sock, syscall.ts_ns FROM leg'
        " JOIN syscall ON syscall.id = leg.call_id"
    )
    wrong = [
        row
        for row in ended
        if whole.ends.get((row["tid"], row["t8_ns"])) != (row["how"], row["sock"], row["ts_ns"])
    ]
    assert wrong == []
    check_complete_rows(trace, whole)


def check_complete_rows(trace: Trace, whole: Whole) -> None:
    """Fail on a row that is said to be complete and differs from the whole recording's."""
    for place, row in by_place(trace).items():
        if row["complete"]:
            assert row == whole.awaits.get(place)


def test_the_lost_end_of_an_await_leaves_it_incomplete(whole: Whole, tmp_path: Path) -> None:
    """Where only the call is lost that ended an await, its row does not say another end."""
    ends = [ts for _how, _sock, ts in whole.ends.values()]
    lost = sorted(ends)[:: max(1, len(ends) // 7)]
    trace = finished(whole.thinner.without(tmp_path / "thin", lost))
    assert trace.rows("SELECT sum(lost_count) AS n FROM gap")[0]["n"] == len(set(lost))
    check_complete_rows(trace, whole)


@pytest.mark.parametrize("seed", range(100, 104))
def test_rows_that_no_loss_touches_stay_complete(whole: Whole, seed: int, tmp_path: Path) -> None:
    """An await of a lossless task that ended before the first loss is complete."""
    trace = finished(whole.thinner.copy(tmp_path / "thin", seed, kernel=True, agents=True))
    first = trace.rows(
        "SELECT min(ts_ns) AS ns FROM (SELECT ts_ns FROM gap UNION ALL SELECT ts_ns FROM agent_gap)"
    )[0]["ns"]
    rows = by_place(trace)
    slack_ns = 30_000_000  # two iterations of its loop, with the programs' longest timeout
    early = {
        place: row
        for place, row in whole.awaits.items()
        if row["end_ns"] + slack_ns < first and row["complete"] and not row["loose"]
    }
    assert {place for place in early if not rows[place]["complete"]} == set()


@pytest.mark.parametrize("seed", range(2))
def test_the_counts_of_a_thinned_trace_are_its_losses(
    whole: Whole, seed: int, tmp_path: Path
) -> None:
    """What `info` says was lost is what was taken away, by kind and by gap."""
    trace = finished(whole.thinner.copy(tmp_path / "thin", seed, kernel=True, agents=True))
    info = info_document(trace)
    lost = {name: kind["lost"] for name, kind in info["events"].items() if kind["lost"]}
    by_kind: dict[str, int] = {}
    for row in info["losses"]:
        by_kind[row["event"]] = by_kind.get(row["event"], 0) + row["lost"]
    assert by_kind == lost
    told = trace.rows(
        "SELECT (SELECT sum(lost_count) FROM gap) + (SELECT sum(lost_count) FROM agent_gap) AS n"
    )
    assert told[0]["n"] == info["lost_total"] == sum(lost.values()) > 0
    assert json.dumps(info)
