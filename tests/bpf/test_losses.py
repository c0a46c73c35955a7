"""What does not fit into a ring is counted, placed, and never makes a row look whole."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from bpf_scope import PYTHON

if TYPE_CHECKING:
    from bpf_scope import Scope

pytestmark = pytest.mark.bpf
STREAMS = str(Path(__file__).parents[1] / "apps" / "streams.py")


@pytest.mark.usefixtures("bpf_left_clean")
def test_every_loss_is_counted_and_placed(scope: Scope) -> None:
    """With the smallest rings the losses by kind are the losses by gap, and are said first."""
    done = scope.run(PYTHON, STREAMS, options=("--ring", "4", "--agent-slots", "16"))
    assert done.code == 0
    info = scope.document("info")
    lost = info["lost_total"]
    assert lost > 1000
    assert lost == sum(event["lost"] for event in info["events"].values())
    talk = [line for line in done.err.splitlines() if not line.startswith("awaitscope:")]
    assert talk[0].startswith(f"LOST {lost} ")
    sql = "SELECT (SELECT sum(lost_count) FROM gap) + (SELECT sum(lost_count) FROM agent_gap) AS n"
    assert int(scope.document("query", sql)["rows"][0]["n"]) == lost

    # each CPU's own count says the same, and every report begins with it
    by_kind: Counter[str] = Counter()
    for row in info["losses"]:
        by_kind[row["event"]] += row["lost"]
        assert (row["cpu"] is None) != (row["agent"] is None)
    assert by_kind == {name: kind["lost"] for name, kind in info["events"].items() if kind["lost"]}
    by_cpu = {
        row["cpu"]: int(row["n"])
        for row in scope.document("query", "SELECT cpu, sum(lost_count) AS n FROM gap GROUP BY 1")[
            "rows"
        ]
    }
    assert by_cpu == {
        cpu: sum(row["lost"] for row in info["losses"] if row["cpu"] == cpu) for cpu in by_cpu
    }
    for command in ("awaits", "tasks", "info", "steps"):
        assert scope.call(command, "t").err.startswith(f"LOST {lost} "), command


@pytest.mark.usefixtures("bpf_left_clean")
def test_what_was_seen_was_written_or_lost(scope: Scope) -> None:
    """Of every kind of kernel record, written and lost are what there was to write, at any time."""
    done = scope.run(PYTHON, STREAMS, options=("--ring", "16"))
    assert done.code == 0
    rows = scope.document("query", "SELECT * FROM loss WHERE cpu IS NOT NULL ORDER BY ts_ns")[
        "rows"
    ]
    last: dict[tuple[str, int], tuple[int, int]] = {}
    for row in rows:
        seen, lost = last.get((row["event"], row["cpu"]), (0, 0))
        assert row["seen"] > seen
        assert lost <= row["lost"] <= row["seen"]
        last[row["event"], row["cpu"]] = row["seen"], row["lost"]
    seen_by_kind: Counter[str] = Counter()
    for (event, _cpu), (seen, _lost) in last.items():
        seen_by_kind[event] += seen
    # what was still open at the end is written by the session, outside of the ring
    own = {
        name: scope.document("query", f"SELECT count(*) AS n FROM {name} WHERE flags & 8 > 0")[
            "rows"
        ][0]["n"]
        for name in ("syscall", "epoll_wait", "off_cpu")
    }
    events = scope.document("info")["events"]
    assert events["syscall"]["lost"] > 1000
    for name, seen in seen_by_kind.items():
        kind = events[name]
        assert kind["written"] - own.get(name, 0) + kind["lost"] == seen, name
    assert len({row["ts_ns"] for row in rows}) > 3, "losses have a place in time"


@pytest.mark.usefixtures("bpf_left_clean")
def test_complete_rows_stay_exact(scope: Scope) -> None:
    """A row that no loss touched carries the bytes that its task really moved."""
    done = scope.run(PYTHON, STREAMS, options=("--ring", "64", "--agent-slots", "1024"))
    truth = json.loads(done.out.splitlines()[-1])
    wanted = Counter(
        (row["sent_bytes"], row["recv_bytes"]) for row in truth["rows"] + truth["server_rows"]
    )
    whole = [
        row
        for row in scope.document("awaits")["rows"]
        if row["complete"] and row["kind"] == "socket" and row["sent_bytes"]
    ]
    got = Counter((row["sent_bytes"], row["recv_bytes"]) for row in whole)
    assert got
    assert not got - wanted
    assert scope.document("info")["lost_total"]
