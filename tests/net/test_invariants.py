"""What holds for every trace, whatever was traced."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from tracing import STAGES

from tracer.report.cards import WAY_UP

if TYPE_CHECKING:
    from tracing import Traced

pytestmark = [pytest.mark.bpf, pytest.mark.slow]
AGES = dict(WAY_UP)


def test_stages_partition_the_await(recording: Traced) -> None:
    """No stage is negative, and together they are the await."""
    for row in recording.awaits:
        stages = [row["stages"][f"{name}_ns"] for name in STAGES]
        known = [value for value in stages if value is not None]
        assert min(known, default=0) >= 0, row
        assert row["total_ns"] == row["end_ns"] - row["start_ns"], row
        if row["task_id"] is not None:
            assert sum(known) == row["total_ns"], row


def test_causes_partition_the_lag(recording: Traced) -> None:
    """No cause is negative, and together they are wake, queue and resume."""
    for row in recording.awaits:
        causes = [value for value in row["lag"].values() if value is not None]
        assert min(causes, default=0) >= 0, row
        if row["task_id"] is not None:
            lag = sum(row["stages"][f"{name}_ns"] or 0 for name in ("wake", "queue", "resume"))
            assert sum(causes) == lag, row


def test_trips_partition_the_await(recording: Traced) -> None:
    """The legs of an await follow each other without a gap, and their stages are its stages."""
    sums = ", ".join(f"sum({name}_ns) AS {name}_ns" for name in STAGES)
    wrong = recording.query(
        f"""
        SELECT * FROM "await" JOIN (
            SELECT await_id, count(*) AS n, min(t0_ns) AS first, max(t8_ns) AS last, {sums},
                   sum(t8_ns - t0_ns) AS total FROM leg GROUP BY await_id
        ) AS sums USING (await_id)
        WHERE (n, first, last, total) IS DISTINCT FROM (legs, start_ns, end_ns, total_ns)
           OR {" OR ".join(f"sums.{n}_ns IS DISTINCT FROM await.{n}_ns" for n in STAGES)}
        """
    )
    assert wrong == []


def test_rows_tile_the_life_of_a_task(recording: Traced) -> None:
    """A task's next row starts where its last one ended, from its first step to its last."""
    rows = defaultdict(list)
    for row in recording.awaits:
        rows[row["task_id"]].append(row)
    rows.pop(None, None)
    for mine in rows.values():
        for row, following in pairwise(mine):
            assert row["end_ns"] == following["start_ns"], (row, following)
    steps = recording.query(
        "SELECT task_total.task_id, min(step.ts_ns) AS first, max(step.ts_ns) AS last"
        " FROM step JOIN task USING (agent, task) JOIN task_total"
        " ON task_total.created_ns = task.ts_ns AND task_total.task_name = task.name"
        " GROUP BY ALL"
    )
    lives = {step["task_id"]: step for step in steps}
    for task, mine in rows.items():
        assert mine[0]["start_ns"] == lives[task]["first"]
        if mine[-1]["outcome"] != "open":
            assert mine[-1]["end_ns"] == lives[task]["last"]


def test_counts_of_tasks_agree(recording: Traced) -> None:
    """The tasks' own numbers of awaits are those of the listing."""
    counted = defaultdict(int)
    for row in recording.awaits:
        counted[row["task_id"]] += 1
    assert all(counted[task["task_id"]] == task["awaits"] for task in recording.tasks)


def test_cut_points_are_in_order(recording: Traced) -> None:
    """Of the cuts that are known, none is before the one before it."""
    cuts = [f"t{n}_ns" for n in range(9)]
    for leg in recording.query(f"SELECT await_id, {', '.join(cuts)} FROM leg"):
        known = [leg[cut] for cut in cuts if leg[cut] is not None]
        assert known == sorted(known), leg


def test_observed_steps_are_proved(recording: Traced) -> None:
    """Each proof of an observed step is a row of the table it names, at the time it says."""
    proofs, wakings, ways = defaultdict(dict), set(), {}
    rows = [row for row in recording.awaits if row["task_id"] is not None]
    for row in rows[:: max(1, len(rows) // 7)]:
        document = recording.steps(row["await_id"])
        assert document["await"] == row
        assert [step["step"] for step in document["steps"]] == list(range(1, 14))
        for step in document["steps"]:
            if step["status"] == "observed":
                assert step["evidence"], step
                assert step["dur_ns"] >= 0, step
            else:
                assert step["reason"], step
            for proof in step["evidence"]:
                if proof["event"] == "sched_waking":  # a time within an off_cpu row
                    wakings.add((proof["tid"], proof["ts_ns"]))
                elif proof["event"] in AGES:  # a time that a row of `receive` holds as an age
                    ways[proof["id"], AGES[proof["event"]]] = proof["ts_ns"]
                else:
                    proofs[proof["table"]][proof["id"]] = proof["ts_ns"]
    for table, times in proofs.items():
        ids = ", ".join(map(str, times))
        found = recording.query(f'SELECT id, ts_ns FROM "{table}" WHERE id IN ({ids})')
        assert {row["id"]: row["ts_ns"] for row in found} == times, table
    for (number, age), ns in ways.items():
        packet = recording.one("receive", number)
        assert packet["ts_ns"] - packet[age] == ns
    woken = recording.query("SELECT tid, ts_ns + wake_ns AS ns FROM off_cpu WHERE wake_ns > 0")
    assert wakings <= {(row["tid"], row["ns"]) for row in woken}


def test_stamps_agree_with_the_agent(recording: Traced) -> None:
    """A call that the kernel stamped with a task lies inside a step of that task, as told by it."""
    outside = recording.query(
        """
        SELECT call.* FROM (SELECT ts_ns, tid, task FROM syscall WHERE task <> 0
                       UNION ALL SELECT ts_ns, tid, task FROM epoll_ctl WHERE task <> 0) AS call
        ASOF LEFT JOIN step
        ON call.tid = step.tid AND call.task = step.task AND call.ts_ns >= step.ts_ns
        WHERE step.id IS NULL OR call.ts_ns > step.end_ns
        """
    )
    assert outside == []


def test_nothing_is_lost(recording: Traced) -> None:
    """A load like this leaves no gap, and every row says that it is whole."""
    assert recording.info["lost_total"] == 0
    assert all(kind["lost"] == 0 for kind in recording.info["events"].values())
    assert recording.info["gaps"] == []
    assert not any("ring_full" in row["reasons"] for row in recording.awaits)


def test_only_what_was_asked_for_is_there(recording: Traced) -> None:
    """Every thread of the trace belongs to a target, and each Python among them has an agent."""
    targets = {target["tgid"]: target for target in recording.info["targets"]}
    assert recording.truth["tgid"] in targets
    assert {row["tgid"] for row in recording.query("SELECT tgid FROM thread")} <= set(targets)
    assert {row["tgid"] for row in recording.awaits} <= set(targets)
    strangers = recording.query(
        """
        SELECT DISTINCT tid FROM (SELECT tid FROM syscall UNION ALL SELECT tid FROM epoll_ctl
            UNION ALL SELECT tid FROM epoll_wait UNION ALL SELECT tid FROM off_cpu)
        WHERE tid NOT IN (SELECT tid FROM thread)
        """
    )
    assert strangers == []
    assert targets[recording.truth["tgid"]]["agent"] == "c"
