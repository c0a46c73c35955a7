"""Attribution against programs that say what each of their awaits sent and received."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

import pytest
from tracing import LOOP_KINDS, MULTIPLEX, facts, on

if TYPE_CHECKING:
    from collections.abc import Callable

    from tracing import Traced, Tracings

pytestmark = [pytest.mark.bpf, pytest.mark.slow]


def check_attribution(trace: Traced) -> None:
    """Fail on a guess, and on 0.5 % of socket awaits without a task."""
    attribution = Counter(row["attribution"] for row in trace.awaits if row["kind"] == "socket")
    assert attribution["inferred"] == 0
    assert attribution["unattributed"] < 0.005 * attribution.total()


@pytest.mark.parametrize(("loop", "level"), [*(("asyncio", n) for n in (1, 2, 3)), ("uvloop", 3)])
def test_streams_are_exact(traced: Tracings, loop: str, level: int) -> None:
    """Every read over streams has its task, its bytes and its outcome, on both sides."""
    trace = traced("streams.py", *on(loop), level=level)
    rows = trace.awaits_at("streams.py", "await reader.readexactly(HEADER")
    rows += trace.awaits_at("streams.py", "await self.reader.readexactly(")
    assert facts(rows) == facts(trace.truth["rows"] + trace.truth["server_rows"])
    check_attribution(trace)


@pytest.mark.postgres
@pytest.mark.parametrize("loop", LOOP_KINDS)
def test_pool_is_exact(pools: Callable[[str], Traced], loop: str) -> None:
    """Every query has its task and the bytes that the kernel counted on its connection."""
    pool = pools(loop)
    rows = pool.awaits_at("pool.py", "await conn.fetch(")
    # What a cancelled query would have received came later: the app cannot know it.
    rows = [row | {"recv_bytes": None} if row["outcome"] == "cancelled" else row for row in rows]
    assert facts(rows) == facts(pool.truth["rows"])
    check_attribution(pool)


@pytest.mark.postgres
@pytest.mark.parametrize("loop", LOOP_KINDS)
def test_pool_first_statements_have_two_trips(pools: Callable[[str], Traced], loop: str) -> None:
    """A statement that its connection has not prepared yet goes to the server twice."""
    pool = pools(loop)
    trips = {
        (row["task_name"], row["sent_bytes"], row["recv_bytes"]): row["round_trips"]
        for row in pool.awaits_at("pool.py", "await conn.fetch(")
    }
    for row in pool.truth["rows"]:
        if row["outcome"] == "ok":
            expected = 2 if row["first"] else 1
            assert trips[row["task"], row["sent_bytes"], row["recv_bytes"]] == expected


@pytest.mark.parametrize("loop", LOOP_KINDS)
@pytest.mark.parametrize("mode", MULTIPLEX)
def test_multiplexed_receives_are_exact(traced: Tracings, mode: str, loop: str) -> None:
    """Each receive ends the awaits of exactly those tasks whose answers it held."""
    trace = traced("multiplex.py", *MULTIPLEX[mode], *on(loop))
    wanted, found = defaultdict(list), defaultdict(list)
    for row in trace.truth["rows"]:
        wanted[row["read"]].append((row["task"], row["sent_bytes"]))
    for row in trace.awaits_at("multiplex.py", "await future"):
        assert row["ended_by"]["type"] == "recv"
        assert (row["kind"], row["outcome"], row["attribution"]) == ("socket", "result", "exact")
        served = len(answered_with(trace, row)) + (mode == "task")  # the reading task too
        assert ("recv_shared" in row["reasons"]) == (served > 1)
        found[row["ended_by"]["id"]].append((row["task_name"], row["sent_bytes"]))
    assert sorted(map(sorted, found.values())) == sorted(map(sorted, wanted.values()))
    check_attribution(trace)


def answered_with(trace: Traced, row: dict[str, Any]) -> list[int]:
    """Return the requests that came with the answer to this row's request."""
    request = row["sent_bytes"] - 1000
    (read,) = [r for r in trace.truth["reads"] if request in r["requests"]]
    return list(read["requests"])


def test_last_sender_is_no_attribution(traced: Tracings) -> None:
    """Giving a receive to the last task that sent on its socket is wrong nearly always here."""
    trace = traced("multiplex.py")
    last_senders = trace.query(
        """
        WITH mux AS (SELECT DISTINCT sock, tid FROM "await" WHERE task_name LIKE 'mux-%'),
             call AS (SELECT syscall.*, task.name FROM syscall JOIN mux USING (sock, tid)
                      LEFT JOIN task ON syscall.task = task.task WHERE ret > 0)
        SELECT recv.id, arg_max(send.name, send.ts_ns) AS sender
        FROM call AS recv JOIN call AS send ON send.ts_ns < recv.ts_ns
        WHERE recv.nr = 45 AND send.nr = 44
        GROUP BY recv.id ORDER BY recv.id
        """
    )
    reads = trace.truth["reads"]
    assert len(last_senders) == len(reads)
    tasks = {row["request"]: row["task"] for row in trace.truth["rows"]}
    right = sum(
        {tasks[request] for request in read["requests"]} == {row["sender"]}
        for row, read in zip(last_senders, reads, strict=True)
    )
    assert all(row["sender"] for row in last_senders)
    assert right < 0.2 * len(reads)
