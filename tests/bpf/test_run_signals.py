"""`awaitscope run` and signals: Ctrl-C, SIGTERM, and the tracer's own violent death."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
from typing import TYPE_CHECKING

import psutil
import pytest
from bpf_scope import PYTHON, Scope, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.bpf

# counts the signals of one kind, waits for more, and ends with a code of its own
COUNTER = """\
import asyncio, pathlib, signal, sys
got = 0
async def main():
    global got
    more = asyncio.Event()
    def count():
        global got
        got += 1
        more.set()
    asyncio.get_running_loop().add_signal_handler(getattr(signal, sys.argv[1]), count)
    pathlib.Path("ready").touch()
    await more.wait()
    await asyncio.sleep(0.4)
asyncio.run(main())
print(got)
sys.exit(9)
"""

TICKER = """\
import asyncio, os, pathlib
async def main():
    pathlib.Path("ticker.tgid").write_text(str(os.getpid()))
    with open("ticks", "ab", buffering=0) as ticks:
        while True:
            await asyncio.sleep(0.01)
            ticks.write(b".")
asyncio.run(main())
"""


def ready(scope: Scope) -> None:
    """Wait until the command says that it runs."""
    until((scope.folder / "ready").exists, "the command's start")


def check_complete(scope: Scope) -> None:
    """The trace is whole: it has the task's end and the command's code."""
    info = scope.document("info")
    assert info["state"] == "complete"
    assert info["exit_code"] == 9
    assert info["lost_total"] == 0
    (task,) = [t for t in scope.document("tasks")["rows"] if t["coroutine"] == "main"]
    assert task["ended_ns"] is not None


@pytest.mark.usefixtures("bpf_left_clean")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_a_signal_to_the_tracer_is_forwarded(scope: Scope, name: str) -> None:
    """A supervisor that signals awaitscope signals the command, once, and has its exit code."""
    process = scope.start(PYTHON, scope.script("app.py", COUNTER), name)
    ready(scope)
    process.send_signal(getattr(signal, name))
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (9, b"1\n"), err.decode()
    check_complete(scope)


def test_ctrl_c_reaches_the_command_once(scope: Scope) -> None:
    """The terminal signals the whole group: awaitscope does not send it a second time."""
    master, slave = pty.openpty()
    try:
        process = scope.start(
            *(PYTHON, scope.script("app.py", COUNTER), "SIGINT"),
            before=("setsid", "--ctty"),
            stdin=slave,
        )
        ready(scope)
        os.write(master, b"\x03")
        out, err = process.communicate(timeout=20)
    finally:
        os.close(master)
        os.close(slave)
    assert (process.returncode, out) == (9, b"1\n"), err.decode()
    check_complete(scope)


def test_a_signal_to_the_group_leaves_a_whole_trace(scope: Scope) -> None:
    """`kill -INT -PGID` ends the command its own way, and awaitscope not before it."""
    script = scope.script("app.py", COUNTER)
    process = scope.start(PYTHON, script, "SIGINT", start_new_session=True)
    ready(scope)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 9, err.decode()
    assert int(out) >= 1
    check_complete(scope)


@pytest.mark.usefixtures("bpf_left_clean")
def test_a_held_command_goes_on_when_the_tracer_dies_while_arming(scope: Scope) -> None:
    """The command does not run before the probes are armed, and runs if they never will be."""
    ran = scope.folder / "ran"
    process = scope.start("sh", "-c", "echo $PPID > ran")
    (child,) = until(psutil.Process(process.pid).children, "the held command")
    os.set_blocking(process.stderr.fileno(), False)
    until(lambda: child.status() == psutil.STATUS_SLEEPING, "the held command to wait")
    assert not ran.exists()
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert b"recording" not in (process.stderr.read() or b""), "it was killed too late"
    until(lambda: ran.exists() and ran.read_text(), "the command to go on")


@pytest.fixture
def ticker(scope: Scope) -> Iterator[Path]:
    """Return the file that the ticking program fills; end the program afterwards."""
    yield scope.folder / "ticks"
    tgid = scope.folder / "ticker.tgid"
    if tgid.exists() and psutil.pid_exists(int(tgid.read_text())):
        os.kill(int(tgid.read_text()), signal.SIGKILL)


@pytest.mark.usefixtures("bpf_left_clean")
def test_a_killed_tracer_leaves_a_running_app_and_a_cut_trace(scope: Scope, ticker: Path) -> None:
    """`kill -9` costs the app nothing, and what was drained is a readable trace, said to be cut."""
    process = scope.start(PYTHON, scope.script("app.py", TICKER), stdout=subprocess.DEVNULL)
    until(lambda: ticker.exists() and ticker.stat().st_size > 30, "the app to tick")
    process.kill()
    process.wait()
    size = ticker.stat().st_size
    until(lambda: ticker.stat().st_size > size + 20, "the app to go on")
    info = scope.document("info")
    assert info["state"] == "cut"
    assert info["exit_code"] is None
    assert info["duration_ns"] > 0
    assert info["events"]["epoll_wait"]["written"] > 10
    assert info["events"]["step"]["written"] > 10
    assert scope.document("info") == info
    size = ticker.stat().st_size
    until(lambda: ticker.stat().st_size > size + 20, "the app to go on after recovery")


def test_a_trace_that_is_being_recorded_is_left_alone(scope: Scope, ticker: Path) -> None:
    """A reader that comes too early is told so (exit 6); the recording goes on whole."""
    process = scope.start(PYTHON, scope.script("app.py", TICKER), stdout=subprocess.DEVNULL)
    until(lambda: ticker.exists() and ticker.stat().st_size > 10, "the app to tick")
    early = scope.call("info", "t")
    assert early.code == 6
    assert "record" in early.err
    process.terminate()
    process.communicate(timeout=20)
    assert process.returncode == 128 + signal.SIGTERM
    info = scope.document("info")
    assert info["state"] == "complete"
    assert info["events"]["step"]["written"] > 10
