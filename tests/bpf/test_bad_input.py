"""What `run` cannot do as asked: one line with the fix, the contract's exit code, nothing left."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from bpf_scope import COMMAND, PYTHON, Scope, until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.bpf

# 200 round trips over a pair of sockets for each line on stdin; a line on stdout before and after
SERVER = """\
import socket, sys
one, two = socket.socketpair()
print("ready", flush=True)
for _line in sys.stdin:
    for _ in range(200):
        one.send(b"x" * 7)
        two.recv(64)
    print("done", flush=True)
"""


@pytest.fixture
def server() -> Iterator[subprocess.Popen[str]]:
    """Give a process that is there before anybody traces it."""
    command = [PYTHON, "-I", "-c", SERVER]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        yield process
        process.stdin.close()


def one_line(err: str) -> str:
    """Check that what was said is a sentence and its fix, and return the sentence."""
    said = [line for line in err.splitlines() if line]
    assert len(said) == 2, err
    assert said[0].startswith("awaitscope: ")
    assert said[1].startswith("  fix: ")
    return said[0]


def test_a_folder_is_no_command(scope: Scope) -> None:
    """A folder was found, but cannot be executed."""
    done = scope.run(str(scope.folder))
    assert done.code == 126
    assert "is a folder" in one_line(done.err)
    assert not scope.trace.exists()


def test_a_root_without_capabilities(scope: Scope) -> None:
    """A container's root, and a hardened service's, may not load: said before anything starts."""
    bare = ["setpriv", "--bounding-set=-all", COMMAND, "run", "--", "touch", "ran"]
    done = subprocess.run(bare, cwd=scope.folder, capture_output=True, text=True, check=False)
    assert done.returncode == 125
    assert "CAP_BPF and CAP_PERFMON" in done.stderr
    assert list(scope.folder.iterdir()) == []


def test_an_output_below_nothing(scope: Scope) -> None:
    """The folder that the trace should go to is not there."""
    done = scope.call("run", "-o", "no/such/t", "--", "touch", "ran")
    assert done.code == 125
    assert "no/such/t failed: No such file" in one_line(done.err)
    assert list(scope.folder.iterdir()) == []


def test_a_run_inside_a_run_is_refused(scope: Scope) -> None:
    """The inner one says that it is traced already; the outer trace is whole."""
    done = scope.run(COMMAND, "run", "-o", "inner", "--", "touch", "ran")
    assert done.code == 125
    assert "traces already" in done.err
    assert not (scope.folder / "inner").exists()
    assert not (scope.folder / "ran").exists()
    info = scope.document("info")
    assert (info["exit_code"], info["state"]) == (125, "complete")


def test_also_refuses_the_tree_that_awaitscope_is_in(scope: Scope) -> None:
    """Nobody traces himself: not by a number, not by the name of a shell around it."""
    shell = scope.folder / "awaitshell"
    shell.symlink_to("/bin/sh")
    own = scope.run("touch", "ran", options=("--also", str(os.getpid())))
    command = f"{COMMAND} run -o t --also awaitshell -- touch ran; exit $?"
    by_name = subprocess.run(
        [shell, "-c", command], cwd=scope.folder, capture_output=True, text=True, check=False
    )
    for code, err in ((own.code, own.err), (by_name.returncode, by_name.stderr)):
        assert code == 2
        assert "would trace itself" in one_line(err)
    assert not (scope.folder / "ran").exists()


def test_two_tracers_on_one_process(scope: Scope, server: subprocess.Popen[str]) -> None:
    """Each records it whole: neither takes anything from the other."""
    waits = scope.script("waits.sh", "until [ -e stop ]; do sleep 0.05; done\n")
    traces = [Scope(scope.folder), Scope(scope.folder)]
    for name, trace in zip("ab", traces, strict=True):
        trace.trace = scope.folder / name
        trace.start("sh", waits, options=("--also", str(server.pid)), stderr=None)
    for trace in traces:
        until((trace.trace / "manifest.json").exists, "both recordings")
    assert server.stdin
    assert server.stdout
    server.stdin.write("go\n")
    server.stdin.flush()
    assert server.stdout.readline() == "done\n"
    (scope.folder / "stop").touch()
    sql = f"SELECT nr, ret, count(*) AS n FROM syscall WHERE tid = {server.pid} AND ret = 7"
    for trace in traces:
        (process,) = trace._started
        assert process.wait(timeout=30) == 0
        rows = trace.document("query", f"{sql} GROUP BY ALL ORDER BY nr")["rows"]
        assert [(row["nr"], row["n"]) for row in rows] == [(44, 200), (45, 200)]
        trace.close()
