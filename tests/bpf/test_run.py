"""`awaitscope run` as a user meets it: exit codes, streams, environment, options."""

from __future__ import annotations

import json
import os
import pwd
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from bpf_scope import PYTHON, Scope, own_environment, until

pytestmark = pytest.mark.bpf
NOBODY = 65534

SLEEPER = """\
import asyncio, os, sys
async def main():
    for _ in range(5):
        await asyncio.sleep(0.002)
asyncio.run(main())
"""

ABOUT_ME = """\
import json, os, pathlib
print(json.dumps({
    "uids": os.getresuid(), "gids": os.getresgid(), "groups": os.getgroups(),
    "env": dict(os.environ), "fds": sorted(os.listdir("/proc/self/fd")),
    "status": pathlib.Path("/proc/self/status").read_text(),
}))
"""


def agents_of(info: dict[str, Any]) -> dict[str, list[str | None]]:
    """Return the reasons by agent mode."""
    found: dict[str, list[str | None]] = {}
    for target in info["targets"]:
        found.setdefault(target["agent"], []).append(target.get("reason"))
    return found


@pytest.mark.usefixtures("bpf_left_clean")
def test_streams_and_exit_code_are_the_commands_own(scope: Scope) -> None:
    """Bytes pass unchanged in all three streams; awaitscope talks on standard error only."""
    data = bytes(range(256)) * 300
    done = scope.run("sh", "-c", "cat; printf 'e\\001r\\n' >&2; exit 7", stdin=data)
    assert done.code == 7
    assert done.out == data
    lines = done.err.splitlines(keepends=True)
    assert lines.count("e\x01r\n") == 1
    assert done.err.startswith("awaitscope: recording sh")
    info = scope.document("info")
    assert info["state"] == "complete"
    assert info["exit_code"] == 7
    assert info["lost_total"] == 0


def test_a_signals_exit_code_is_128_and_its_number(scope: Scope) -> None:
    """A command that a signal ended counts as the shell counts it."""
    assert scope.run("sh", "-c", "kill -KILL $$").code == 128 + 9
    assert scope.document("info")["exit_code"] == 137


def test_a_command_that_does_not_exist_is_127_and_leaves_nothing(scope: Scope) -> None:
    """A typing error costs one sentence, and the next run may have the same output."""
    done = scope.run("no-such-command-anywhere")
    assert done.code == 127
    assert done.out == b""
    assert "no-such-command-anywhere" in done.err
    assert not scope.trace.exists()


def test_a_file_without_the_execute_bit_is_126_and_leaves_nothing(scope: Scope) -> None:
    """What was found but may not be executed is told apart from what was not found."""
    done = scope.run(scope.script("plain.sh", "#!/bin/sh\n"))
    assert done.code == 126
    assert "chmod" in done.err
    assert not scope.trace.exists()


@pytest.mark.usefixtures("bpf_left_clean")
@pytest.mark.parametrize("text", ["#!/no/such/interpreter\n", "no magic at all\n"])
def test_a_failed_exec_is_126_and_leaves_nothing(scope: Scope, text: str) -> None:
    """The kernel's refusal of the held command comes back through the pipe."""
    done = scope.run(scope.script("bad", text, 0o755))
    assert done.code == 126
    assert done.out == b""
    assert "Traceback" not in done.err
    assert not scope.trace.exists()


def test_an_existing_output_needs_force_and_must_be_a_trace(scope: Scope) -> None:
    """Nothing is overwritten unasked, nothing that is no trace ever, and nothing runs then."""
    scope.trace.mkdir()
    kept = scope.trace / "kept"
    kept.write_text("mine")
    for options in ((), ("--force",)):
        done = scope.run("touch", "ran", options=options)
        assert done.code == 125
        assert done.out == b""
        assert "exists" in done.err
        assert kept.read_text() == "mine"
        assert list(scope.trace.iterdir()) == [kept]
        assert not (scope.folder / "ran").exists()


def test_force_replaces_a_trace(scope: Scope) -> None:
    """With --force the folder of an earlier trace is used again, without its files."""
    scope.trace.mkdir()
    (scope.trace / "manifest.json").write_text('{"format": 1}')
    (scope.trace / "old").write_text("old")
    assert scope.run("/bin/true", options=("--force",)).code == 0
    assert not (scope.trace / "old").exists()
    info = scope.document("info")
    assert info["command"] == ["/bin/true"]


def test_a_command_without_python_is_traced_and_said_to_have_no_tasks(scope: Scope) -> None:
    """No Python is no error: system calls are there, and the summary says why no tasks are."""
    done = scope.run("/bin/true")
    assert done.code == 0
    assert "no tasks" in done.err
    info = scope.document("info")
    assert info["events"]["syscall"]["written"] > 0
    assert info["events"]["task"]["written"] == 0
    assert list(agents_of(info)) == ["none"]
    assert all(agents_of(info)["none"]), "each target without an agent has a reason"


def test_an_isolated_python_has_no_agent_and_the_reason(scope: Scope) -> None:
    """`python -I` ignores PYTHONPATH: info says that this is why there are no tasks."""
    script = scope.script("app.py", SLEEPER + "import time; time.sleep(0.2)\n")
    done = scope.run(PYTHON, "-I", script)
    assert done.code == 0
    assert "no tasks" in done.err
    info = scope.document("info")
    (target,) = info["targets"]
    assert target["agent"] == "none"
    assert "-I" in target["reason"]
    assert info["events"]["epoll_wait"]["written"] >= 5


def test_a_short_python_is_not_called_something_else(scope: Scope) -> None:
    """A process that ended before it was looked at is never said to be no Python."""
    scope.run("sh", "-c", f"{PYTHON} -S -c 'import os; os._exit(0)'; sleep 0.1")
    reasons = agents_of(scope.document("info"))["none"]
    assert len(reasons) == 3, reasons
    assert reasons.count("not a Python process") < 3, reasons


def test_the_command_that_a_recording_names_next_can_be_typed(scope: Scope) -> None:
    """Without an await on a socket there are no 13 steps to show: all awaits are named."""
    done = scope.run(PYTHON, scope.script("app.py", SLEEPER))
    (line,) = [line for line in done.err.splitlines() if line.startswith("next: ")]
    command = shlex.split(line.removeprefix("next: "))
    shown = subprocess.run(command, cwd=scope.folder, capture_output=True, text=True, check=True)
    (worst,) = [line for line in done.err.splitlines() if line.startswith("slowest: ")]
    assert "app.py:4" in worst
    assert "app.py:4" in shown.stdout


def test_children_are_traced_with_their_tasks(scope: Scope) -> None:
    """A Python started in the background of a shell has an agent and its own tgid."""
    script = scope.script("app.py", SLEEPER)
    assert scope.run("sh", "-c", f"{PYTHON} {script} & wait").code == 0
    info = scope.document("info")
    modes = agents_of(info)
    assert len(modes["c"]) == 1
    (python,) = [t["tgid"] for t in info["targets"] if t["agent"] == "c"]
    rows = scope.document("awaits")["rows"]
    assert [r["kind"] for r in rows if r["tgid"] == python].count("timer") == 5


def test_the_users_pythonpath_and_sitecustomize_stay(scope: Scope) -> None:
    """The agent's start-up hook hands over to the app's own, and sys.path is as without it."""
    own = scope.folder / "own"
    own.mkdir()
    scope.script("own/sitecustomize.py", "import sys; sys.own_site = (__name__, __file__)\n")
    app = SLEEPER + (
        "import json, sitecustomize\n"
        "print(json.dumps([sys.path, os.environ['PYTHONPATH'], sys.own_site,"
        " sitecustomize.__file__]))\n"
    )
    script = scope.script("app.py", app)
    env = own_environment(PYTHONPATH=f"{own}:/second/entry")
    plain = subprocess.run([PYTHON, script], env=env, capture_output=True, check=True)
    done = scope.run(PYTHON, script, env=env)
    assert done.code == 0, done.err
    path, variable, site, imported = json.loads(done.out)
    plain_path, _variable, plain_site, plain_imported = json.loads(plain.stdout)
    assert path == plain_path
    assert variable.endswith(f":{own}:/second/entry")
    assert site == plain_site
    assert imported == plain_imported
    assert "c" in agents_of(scope.document("info"))


def test_under_sudo_the_command_is_the_invoking_users(public: Scope) -> None:
    """Uid, gid, groups, HOME and files are those of the user behind sudo; no privilege is left."""
    env = own_environment(
        SUDO_UID=str(NOBODY), SUDO_GID=str(NOBODY), SUDO_USER="nobody", SUDO_COMMAND="x", KEPT="1"
    )
    done = public.run(PYTHON, "-c", ABOUT_ME, env=env)
    assert done.code == 0, done.err
    me = json.loads(done.out)
    assert me["uids"] == [NOBODY] * 3
    assert me["gids"] == [NOBODY] * 3
    assert me["groups"] == [NOBODY]
    for capabilities in ("CapPrm", "CapEff", "CapAmb"):
        assert f"{capabilities}:\t{0:016x}" in me["status"]
    assert not [name for name in me["env"] if name.startswith("SUDO_")]
    assert me["env"]["USER"] == me["env"]["LOGNAME"] == "nobody"
    assert me["env"]["HOME"] == pwd.getpwuid(NOBODY).pw_dir
    assert me["env"]["KEPT"] == "1"
    for folder, _names, files in os.walk(public.trace):
        assert_private(Path(folder), 0o700)
        for name in files:
            assert_private(Path(folder) / name, 0o600)
    assert public.document("info")["state"] == "complete"


def assert_private(path: Path, mode: int) -> None:
    """Check that a file is nobody's and only theirs."""
    seen = path.stat()
    assert (seen.st_uid, seen.st_gid, seen.st_mode & 0o7777) == (NOBODY, NOBODY, mode), path


def test_the_command_inherits_no_descriptor_and_its_start_is_in_the_trace(scope: Scope) -> None:
    """The target has the three standard descriptors, and its exec comes after the release."""
    done = scope.run(PYTHON, "-c", ABOUT_ME)
    # listing a folder opens a fourth
    assert json.loads(done.out)["fds"] == ["0", "1", "2", "3"]
    sql = "SELECT count(*) AS n FROM thread WHERE what = 2 AND comm LIKE 'python%'"
    assert scope.document("query", sql)["rows"] == [{"n": 1}]


@pytest.mark.usefixtures("bpf_left_clean")
def test_duration_ends_the_recording_and_not_the_command(scope: Scope) -> None:
    """After --duration the trace is whole while the command goes on; its exit code is returned."""
    process = scope.start(
        *("sh", "-c", "until [ -e stop ]; do sleep 0.05; done; echo end; exit 3"),
        options=("--duration", "0.5"),
    )
    until((scope.trace / "await.parquet").exists, "the correlated trace")
    until(lambda: b'"correlated": true' in (scope.trace / "manifest.json").read_bytes(), "its end")
    info = scope.document("info")
    assert info["state"] == "complete"
    assert info["exit_code"] is None, "nobody knows it yet"
    assert 0.5e9 <= info["duration_ns"] < 1.0e9
    assert process.poll() is None
    (scope.folder / "stop").touch()
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (3, b"end\n"), err.decode()


def test_a_link_is_never_emptied(scope: Scope) -> None:
    """--force on a symbolic link to a trace leaves both alone, and says so."""
    real = scope.folder / "real"
    real.mkdir()
    (real / "manifest.json").write_text('{"format": 1}')
    scope.trace.symlink_to(real)
    done = scope.run("touch", "ran", options=("--force",))
    assert done.code == 125
    assert "Traceback" not in done.err
    assert (real / "manifest.json").exists()
    assert not (scope.folder / "ran").exists()


def test_also_needs_a_process(scope: Scope) -> None:
    """A name that no process has is a wrong usage; the command does not run."""
    for spec in ("no-such-name", "4194305"):
        done = scope.run("touch", "ran", options=("--also", spec))
        assert done.code == 2
        assert spec in done.err
    assert not scope.trace.exists()
    assert not (scope.folder / "ran").exists()


def test_also_refuses_a_name_of_several_trees_and_takes_a_pid(scope: Scope) -> None:
    """Which of two servers is meant is asked, with the list; a PID is unambiguous."""
    peer = scope.folder / "awaitpeer"
    shutil.copy(shutil.which("sleep") or "/bin/sleep", peer)
    peers = [subprocess.Popen([peer, "60"]) for _ in range(2)]
    try:
        done = scope.run("/bin/true", options=("--also", "awaitpeer"))
        assert done.code == 2
        assert all(str(p.pid) in done.err for p in peers)
        done = scope.run("/bin/true", options=("--also", str(peers[0].pid)))
        assert done.code == 0, done.err
    finally:
        for process in peers:
            process.kill()
            process.wait()
    tgids = {t["tgid"] for t in scope.document("info")["targets"]}
    assert peers[0].pid in tgids
    assert peers[1].pid not in tgids
