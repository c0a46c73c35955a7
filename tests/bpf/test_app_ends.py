"""Programs that end, change or hide themselves: the trace says what there was, and what not."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from bpf_scope import PYTHON, Scope, until

from tracer.correlate.trace import Trace, open_trace
from tracer.events.header import load
from tracer.report.awaits import task_rows
from tracer.report.info import info_document

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.bpf, pytest.mark.usefixtures("bpf_left_clean")]
NOBODY = 65534

# five sleeps, each told to the file `told`, and then whatever the test wants
SLEEPER = """\
import asyncio, ctypes, os, signal, sys
async def sleeps(name):
    for n in range(5):
        await asyncio.sleep(0.002)
        with open("told", "a") as told:
            told.write(f"{os.getpid()} {name}\\n")
async def main():
    await sleeps("first")
    LAST
asyncio.run(main())
"""


def traced(scope: Scope) -> Trace:
    """Open the finished trace in this process."""
    return open_trace(scope.trace, scope.folder)


def told(scope: Scope) -> list[list[str]]:
    """Return what the program wrote: its process id and a name for each sleep that ended."""
    return [line.split() for line in (scope.folder / "told").read_text().splitlines()]


def slept(trace: Trace, tgid: int) -> list[dict[str, Any]]:
    """Return the sleeps of a process that ended by themselves and are complete."""
    return trace.rows(
        """SELECT * FROM "await" WHERE kind = 'timer' AND outcome = 'result' AND complete
           AND tgid = ? AND total_ns >= 2000000""",
        tgid,
    )


def open_steps(trace: Trace) -> list[dict[str, Any]]:
    """Return the steps that had not ended, with the end of their thread or its image."""
    constants = load().constants
    return trace.rows(
        """SELECT step.*, (SELECT min(thread.ts_ns) FROM thread WHERE thread.tid = step.tid
               AND what IN (?, ?) AND thread.ts_ns >= step.ts_ns) AS over
           FROM step WHERE flags & ? > 0""",
        constants["THREAD_EXIT"],
        constants["THREAD_EXEC"],
        constants["RUN_OPEN"],
    )


ENDS = {
    "os._exit": ("os._exit(3)", 3),
    "a segmentation fault": ("ctypes.string_at(0)", 128 + signal.SIGSEGV),
    "kill -9": ("os.kill(os.getpid(), signal.SIGKILL)", 128 + signal.SIGKILL),
    "exec of something else": ("os.execv('/bin/sh', ['sh', '-c', 'exit 6'])", 6),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_process_that_ends_in_a_step_leaves_that_step(scope: Scope, end: str) -> None:
    """The last step has a record that says it did not end, and the await before it its true end."""
    last, code = ENDS[end]
    done = scope.run(PYTHON, scope.script("app.py", SLEEPER.replace("LAST", last)))
    assert done.code == code
    trace = traced(scope)
    assert (trace.manifest["state"], trace.manifest["exit_code"]) == ("complete", code)
    assert len(slept(trace, int(told(scope)[0][0]))) == len(told(scope)) == 5
    assert trace.rows("""SELECT * FROM "await" WHERE outcome = 'open'""") == []
    (step,) = open_steps(trace)
    assert (step["how"], step["end_ns"]) == (0, step["over"])
    assert step["ts_ns"] < step["end_ns"] < trace.manifest["end_ns"]
    (task,) = [row for row in task_rows(trace) if row["coroutine"] == "main"]
    assert task["ended_ns"] is None
    assert task["steps"] == 6


def test_a_callback_that_ends_the_process_is_there(scope: Scope) -> None:
    """A callback that did not end has its record too."""
    last = "asyncio.get_running_loop().call_soon(os._exit, 4)\n    await asyncio.sleep(9)"
    assert scope.run(PYTHON, scope.script("app.py", SLEEPER.replace("LAST", last))).code == 4
    trace = traced(scope)
    opened = trace.rows("SELECT * FROM callback WHERE flags & ? > 0", load().constants["RUN_OPEN"])
    assert len(opened) == 1
    assert opened[0]["end_ns"] > opened[0]["ts_ns"]
    assert opened[0]["waker_run"] > 0


def test_a_step_that_goes_on_when_the_recording_ends(scope: Scope) -> None:
    """With --duration the step that blocks the loop at the end is there, up to the end."""
    last = """\
import time
    open("blocked", "w").close()
    while not os.path.exists("go"):
        time.sleep(0.01)
"""
    script = scope.script("app.py", SLEEPER.replace("LAST", last))
    process = scope.start(PYTHON, script, options=("--duration", "1.5"))
    until((scope.folder / "blocked").exists, "the app to block its loop")
    manifest = scope.trace / "manifest.json"
    until(lambda: b'"correlated": true' in manifest.read_bytes(), "the end of the recording")
    trace = traced(scope)
    (scope.folder / "go").touch()
    process.communicate(timeout=20)
    assert process.returncode == 0
    (step,) = open_steps(trace)
    assert step["end_ns"] == trace.manifest["end_ns"]
    assert len(slept(trace, int(told(scope)[0][0]))) == 5


def test_a_program_that_execs_itself_has_an_agent_in_each_image(scope: Scope) -> None:
    """After os.execv the new image's awaits are there, and the old one's last step ends."""
    last = "len(sys.argv) > 1 or os.execv(sys.executable, [sys.executable, __file__, 'again'])"
    done = scope.run(PYTHON, scope.script("app.py", SLEEPER.replace("LAST", last)))
    assert done.code == 0
    trace = traced(scope)
    (tgid,) = {int(pid) for pid, _name in told(scope)}
    assert [a["tgid"] for a in trace.manifest["agents"] if a["mode"] == "c"] == [tgid, tgid]
    assert len(slept(trace, tgid)) == len(told(scope)) == 10
    (step,) = open_steps(trace)
    assert step["end_ns"] == step["over"]
    starts = sorted(a["start_ns"] for a in trace.manifest["agents"])
    assert step["end_ns"] < starts[1]
    (target,) = info_document(trace)["targets"]
    assert target["agent"] == "c"


def test_a_forked_child_has_its_own_awaits(scope: Scope) -> None:
    """A child forked in a step, with a loop of its own, is a process of its own in the trace."""
    last = """\
if os.fork() == 0:
        asyncio.run(sleeps("child"))
        os._exit(0)
    os.wait()
    await sleeps("second")"""
    done = scope.run(PYTHON, scope.script("app.py", SLEEPER.replace("LAST", last)))
    assert done.code == 0, done.err
    trace = traced(scope)
    processes: dict[int, int] = {}
    for pid, _name in told(scope):
        processes[int(pid)] = processes.get(int(pid), 0) + 1
    assert sorted(processes.values()) == [5, 10]
    assert {pid: len(slept(trace, pid)) for pid in processes} == processes
    assert {a["tgid"] for a in trace.manifest["agents"]} == set(processes)


def test_a_program_that_ends_at_once(scope: Scope) -> None:
    """Nothing happened, and that is what the trace says."""
    done = scope.run(PYTHON, "-c", "import os; os._exit(5)")
    assert done.code == 5
    trace = traced(scope)
    assert trace.manifest["state"] == "complete"
    assert trace.rows('SELECT * FROM "await"') == []
    (target,) = info_document(trace)["targets"]
    assert target["agent"] == "c"


DAEMON = """\
import asyncio, os, pathlib, sys
if os.fork():
    while not os.path.exists("ticks"):
        pass
    sys.exit(0)
os.setsid()
if os.fork():
    os._exit(0)
async def main():
    pathlib.Path("daemon.tgid").write_text(str(os.getpid()))
    while not os.path.exists("stop"):
        await asyncio.sleep(0.005)
        with open("ticks", "a") as ticks:
            ticks.write(".")
asyncio.run(main())
"""


@pytest.fixture
def daemon(scope: Scope) -> Iterator[str]:
    """Give the program that goes into the background; end it afterwards."""
    yield scope.script("app.py", DAEMON)
    (scope.folder / "stop").touch()


def test_a_daemon_is_recorded_until_its_command_returns(scope: Scope, daemon: str) -> None:
    """What lives on is named, unharmed, and its awaits up to there are in the trace."""
    with (scope.folder / "err").open("wb") as err:  # the daemon keeps it
        process = scope.start(PYTHON, daemon, stdout=subprocess.DEVNULL, stderr=err)
        assert process.wait(timeout=30) == 0
    tgid = int((scope.folder / "daemon.tgid").read_text())
    said = (scope.folder / "err").read_text()
    assert f"still running when the command returned: {tgid} (python" in said
    ticks = scope.folder / "ticks"
    size = ticks.stat().st_size
    until(lambda: ticks.stat().st_size > size + 20, "the daemon to go on")
    trace = traced(scope)
    assert trace.manifest["state"] == "complete"
    assert info_document(trace)["left_running"] == [tgid]
    rows = trace.rows('SELECT * FROM "await" WHERE tgid = ?', tgid)
    assert rows
    assert all(row["start_ns"] <= trace.manifest["end_ns"] for row in rows)


def test_a_program_that_closes_all_its_descriptors(scope: Scope) -> None:
    """The agent needs no descriptor: what comes after os.closerange is in the trace."""
    last = 'os.closerange(0, 3)\n    await sleeps("second")'
    text = SLEEPER.replace("LAST", last).replace(
        "asyncio.run(main())",
        "os.closerange(3, 4096)\nasyncio.run(main())",
    )
    done = scope.run(PYTHON, scope.script("app.py", text))
    assert done.code == 0, done.err
    trace = traced(scope)
    assert len(slept(trace, int(told(scope)[0][0]))) == len(told(scope)) == 10
    assert trace.manifest["state"] == "complete"


HIDDEN = """\
import asyncio, json, os, sys
async def sleeps():
    for n in range(5):
        await asyncio.sleep(0.002)
async def main():
    await sleeps()
    os.mkdir("root")
    os.chroot("root")
    os.chdir("/")
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    await sleeps()
    child = os.fork()
    if child == 0:
        asyncio.run(sleeps())
        os._exit(0)
    os.wait()
    await sleeps()
    print(json.dumps([os.getpid(), child]))
asyncio.run(main())
""".replace("NOBODY", str(NOBODY))


def test_a_program_that_changes_root_folder_and_user(scope: Scope) -> None:
    """It is traced on; a child that it forks then cannot reach the trace, and that is said."""
    done = scope.run(PYTHON, scope.script("app.py", HIDDEN))
    assert done.code == 0, done.err
    tgid, child = json.loads(done.out)
    trace = traced(scope)
    assert len(slept(trace, tgid)) == 15
    assert slept(trace, child) == []
    targets = {t["tgid"]: t for t in info_document(trace)["targets"]}
    assert targets[tgid]["agent"] == "c"
    assert targets[child]["agent"] == "none"
    assert "live_unwritable: No such file or directory" in targets[child]["reason"]
    assert trace.rows("SELECT count(*) AS n FROM epoll_wait WHERE tid = ?", child)[0]["n"] >= 5


def test_a_child_with_a_cleared_environment_has_no_agent_and_the_reason(scope: Scope) -> None:
    """A Python that was started with an environment of its own is traced, without tasks."""
    child = scope.script("child.py", SLEEPER.replace("LAST", "await asyncio.sleep(0.1)"))
    last = f"""\
import subprocess
    child = subprocess.Popen([sys.executable, {child!r}], env={{}})
    print(child.pid, child.wait())"""
    done = scope.run(PYTHON, scope.script("app.py", SLEEPER.replace("LAST", last)))
    pid, code = map(int, done.out.split())
    assert (done.code, code) == (0, 0), done.err
    trace = traced(scope)
    targets = {t["tgid"]: t for t in info_document(trace)["targets"]}
    assert targets[pid]["agent"] == "none"
    assert "environment" in targets[pid]["reason"]
    assert len(slept(trace, int(told(scope)[0][0]))) == 5


def test_ctrl_c_is_a_keyboard_interrupt_and_the_trace_is_whole(scope: Scope) -> None:
    """The program ends by the terminal's signal as it would untraced; the await was cancelled."""
    master, slave = pty.openpty()
    last = 'open("ready", "w").close()\n    await asyncio.sleep(60)'
    try:
        process = scope.start(
            *(PYTHON, scope.script("app.py", SLEEPER.replace("LAST", last))),
            # as in a terminal: a test run in a shell's background inherits that it is ignored
            before=("env", "--default-signal=INT", "setsid", "--ctty"),
            stdin=slave,
        )
        until((scope.folder / "ready").exists, "the program to wait")
        os.write(master, b"\x03")
        _, err = process.communicate(timeout=20)
    finally:
        os.close(master)
        os.close(slave)
    assert process.returncode == 128 + signal.SIGINT
    assert b"KeyboardInterrupt" in err
    trace = traced(scope)
    assert (trace.manifest["state"], trace.manifest["exit_code"]) == ("complete", 130)
    outcomes = trace.rows('SELECT outcome, count(*) AS n FROM "await" GROUP BY 1')
    assert {row["outcome"]: row["n"] for row in outcomes} == {"result": 5, "cancelled": 1}
    (task,) = [row for row in task_rows(trace) if row["coroutine"] == "main"]
    assert task["ended_ns"] is not None
