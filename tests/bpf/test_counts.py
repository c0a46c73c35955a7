"""Known numbers of system calls, next to a busy pair of processes that nobody asked for."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tracer.system.syscalls import name_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracing import Traced, Tracings

pytestmark = pytest.mark.bpf
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def pair() -> Iterator[dict[str, Any]]:
    """Let two processes exchange bytes as fast as they can; give their tids and ports."""
    command = [sys.executable, "-I", str(HERE / "pair.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        try:
            yield json.loads(parent.stdout.readline())
            assert parent.poll() is None
        finally:
            parent.send_signal(signal.SIGKILL)  # the child then reads the end


@pytest.fixture(scope="module")
def counted(traced: Tracings, pair: dict[str, Any]) -> Traced:
    """Give the trace of calls.py, recorded beside the pair."""
    return traced(HERE / "calls.py")


def test_every_call_is_one_event(counted: Traced) -> None:
    """So many calls of a kind are so many events of it: not one more, not one less."""
    found: Counter[str] = Counter()
    reads = ", ".join(map(str, counted.truth["pipe"]))
    # Python's own start reads files and pipes, and stdout is a pipe: only ours count there.
    for row in counted.query(
        "SELECT nr, count(*) AS n FROM syscall"
        f" WHERE nr NOT IN (0, 1, 19, 20) OR fd IN ({reads}) GROUP BY nr"
    ):
        found[name_of(row["nr"])] = row["n"]
    for row in counted.query("SELECT nr, count(*) AS n FROM epoll_wait GROUP BY nr"):
        found[name_of(row["nr"])] = row["n"]
    found["epoll_ctl"] = counted.query("SELECT count(*) AS n FROM epoll_ctl")[0]["n"]
    wanted = counted.truth["counts"]
    assert {name: found[name] for name in wanted} == wanted
    assert counted.info["lost_total"] == 0


def test_results_are_the_calls_own(counted: Traced) -> None:
    """The bytes of a call are those that it returned to the program."""
    sizes = {44: 6, 45: 6, 46: 7, 47: 7}
    rows = counted.query(f"SELECT DISTINCT nr, ret FROM syscall WHERE nr IN {tuple(sizes)}")
    assert {row["nr"]: row["ret"] for row in rows} == sizes
    assert len(rows) == len(sizes)
    operations = counted.query("SELECT op, ret, count(*) AS n FROM epoll_ctl GROUP BY op, ret")
    assert {(row["op"], row["ret"]): row["n"] for row in operations} == {(1, 0): 997, (2, 0): 997}


def test_connections_are_counted(counted: Traced) -> None:
    """Each connection is two sockets that became established, and is accepted once."""
    made = counted.truth["counts"]["connect"]
    (row,) = counted.query("SELECT count(DISTINCT sock) AS n FROM socket_state WHERE newstate = 1")
    assert row["n"] == 2 * made


def test_no_other_process_appears(counted: Traced, pair: dict[str, Any]) -> None:
    """Every process and thread id in any table, whatever its column, is the program's own."""
    own = {counted.truth["tgid"]}
    assert own.isdisjoint(pair["tids"])
    columns = counted.query(
        "SELECT table_name AS t, column_name AS c FROM duckdb_columns() JOIN duckdb_views()"
        " ON view_name = table_name WHERE regexp_matches(column_name, '(^|_)(tid|tgid)$')"
    )
    assert {(row["t"], row["c"]) for row in columns} >= {
        *((table, "tid") for table in ("thread", "syscall", "off_cpu", "receive", "transmit")),
        *(("thread", column) for column in ("tgid", "parent_tid")),
        ("off_cpu", "waker_tid"),
    }
    for row in columns:
        sql = f"""SELECT DISTINCT "{row["c"]}" AS id FROM "{row["t"]}" WHERE "{row["c"]}" > 0"""
        assert {found["id"] for found in counted.query(sql)} <= own, row
    assert [target["tgid"] for target in counted.info["targets"]] == [counted.truth["tgid"]]


def test_no_other_socket_appears(counted: Traced, pair: dict[str, Any]) -> None:
    """Each TCP socket has the program's listener at one end, and no packet is another socket's."""
    port = counted.truth["port"]
    assert port not in pair["ports"]
    sockets = counted.query(
        "SELECT DISTINCT lport = $PORT OR rport = $PORT AS ours FROM socket"
        " WHERE family IN (2, 10) AND lport > 0".replace("$PORT", str(port))
    )
    assert sockets == [{"ours": True}]
    for table in ("receive", "transmit", "socket_state", "retransmit"):
        unknown = f"SELECT * FROM {table} WHERE sock NOT IN (SELECT sock FROM socket) LIMIT 1"
        assert counted.query(unknown) == [], table
