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
