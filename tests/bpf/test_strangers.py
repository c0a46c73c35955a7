"""What a traced program shares with strangers, or had before them, shows nothing of theirs."""

from __future__ import annotations

import json
import socket
import subprocess
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from bpf_scope import PYTHON, Scope, until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.bpf
CONNECTIONS = 40

# takes connections until a line comes on stdin; then closes its listener, and waits for the end
SERVER = """\
import json, os, select, socket, sys
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
listener.bind(("127.0.0.1", int(sys.argv[1])))
listener.listen(64)
open("ready", "w").close()
taken = []
while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
    taken.append(listener.accept()[0])
    taken[-1].sendall(b"t")
sys.stdin.readline()
listener.close()
print(json.dumps([one.getpeername()[1] for one in taken]), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def neighbour() -> Iterator[socket.socket]:
    """Give an untraced listener; others may listen on its port."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield listener


def test_a_port_shared_with_a_stranger(scope: Scope, neighbour: socket.socket) -> None:
    """Of the connections to a port, those that the kernel gave to a stranger do not appear."""
    address = neighbour.getsockname()
    script = scope.script("server.py", SERVER)
    process = scope.start(PYTHON, script, str(address[1]), stdin=subprocess.PIPE)
    until((scope.folder / "ready").exists, "the server to listen")
    with ExitStack() as stack:
        clients = [
            stack.enter_context(socket.create_connection(address)) for _ in range(CONNECTIONS)
        ]
        theirs = set()
        neighbour.setblocking(False)
        while len(theirs) < CONNECTIONS:
            try:
                theirs.add(stack.enter_context(neighbour.accept()[0]).getpeername()[1])
            except BlockingIOError:
                break
        for client in clients:
            assert client.getsockname()[1] in theirs or client.recv(1) == b"t"
        process.stdin.write(b"\n")
        process.stdin.flush()
        taken = json.loads(process.stdout.readline())
        assert len(theirs) + len(taken) == CONNECTIONS
        assert theirs
        # the traced listener is gone: the port is the stranger's alone now
        for _ in range(5):
            stack.enter_context(socket.create_connection(address))
        finished(process)
    sql = f"SELECT DISTINCT rport FROM socket WHERE lport = {address[1]} AND rport > 0"
    rows = scope.document("query", sql)["rows"]
    assert sorted(row["rport"] for row in rows) == sorted(taken)
    assert taken


def finished(process: Any) -> None:
    """Let the program end by itself: its input is at its end."""
    _out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err.decode()


# makes sockets without a connection, closes them, and waits for the end
CLOSED = """\
import socket, sys, time
def datagrams():
    one, two = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    two.bind(("127.0.0.1", 0))
    one.connect(two.getsockname())
    return one, two
def use(make, count):
    pairs = [make() for _ in range(count)]
    for one, two in pairs:
        one.send(b"x")
        two.recv(1)
    for one, two in pairs:
        one.close()
        two.close()
for make in (socket.socketpair, datagrams):
    use(make, 150)
"""
WAITING = "print(time.monotonic_ns(), flush=True)\nsys.stdin.read()\n"


def test_an_address_that_a_stranger_got_next(scope: Scope) -> None:
    """The kernel reuses the memory of closed sockets: whose it is now is looked at each time."""
    script = scope.script("closed.py", CLOSED + WAITING)
    process = scope.start(PYTHON, script, stdin=subprocess.PIPE)
    closed_ns = int(process.stdout.readline())
    subprocess.run([PYTHON, "-c", CLOSED], check=True)
    finished(process)
    for table in ("receive", "transmit"):
        sql = f"SELECT count(*) AS n, count(*) FILTER (ts_ns > {closed_ns}) AS after FROM {table}"
        (row,) = scope.document("query", sql)["rows"]
        assert row["n"] >= 150
        assert row["after"] == 0, table
