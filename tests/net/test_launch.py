"""`awaitscope run` in front of whatever starts a Python: all processes and tasks in one trace."""

from __future__ import annotations

import http.client
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import venv
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from exact import check_exact
from tracing import APPS, COMMAND, Traced

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [pytest.mark.bpf, pytest.mark.slow]
RELATIVES = str(APPS / "relatives.py")
# what Docker leaves of root (moby, oci/caps/defaults.go)
DOCKER_CAPABILITIES = (
    *("chown", "dac_override", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap"),
    *("net_bind_service", "net_raw", "sys_chroot", "mknod", "audit_write", "setfcap"),
)
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(APPS)}


def in_a_venv(folder: Path) -> list[str]:
    """Return a command of an interpreter in a virtual environment of its own."""
    venv.create(folder / "own", symlinks=True)
    return [str(folder / "own" / "bin" / "python"), RELATIVES]


def console_script(folder: Path) -> list[str]:
    """Return a script as pip makes it: a #! line that names the environment's interpreter."""
    script = folder / "relatives"
    script.write_text(f"#!{sys.executable}\nimport relatives\nrelatives.talk('script')\n")
    script.chmod(0o755)
    return [str(script)]


def by_shell(_folder: Path) -> list[str]:
    """Return a shell that starts two at once and one after them."""
    one = shlex.join([sys.executable, RELATIVES])
    return ["sh", "-c", f"{one} & {one} & wait; {one}"]


def by_pytest(folder: Path) -> list[str]:
    """Return a run of pytest, whose only test talks."""
    test = folder / "test_talk.py"
    test.write_text("import relatives\ndef test_talk():\n    relatives.talk('tested')\n")
    return [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", str(test)]


WAYS: dict[str, tuple[Callable[[Path], list[str]], int]] = {
    "venv": (in_a_venv, 1),
    "module": (lambda _folder: [sys.executable, "-m", "relatives"], 1),
    "script": (console_script, 1),
    "env": (lambda _folder: ["env", sys.executable, RELATIVES], 1),
    "pytest": (by_pytest, 1),
    "shell": (by_shell, 3),
    "fork": (lambda _folder: [sys.executable, RELATIVES, "fork"], 3),
    "spawn": (lambda _folder: [sys.executable, RELATIVES, "spawn"], 3),
    "forkserver": (lambda _folder: [sys.executable, RELATIVES, "forkserver"], 3),
    "children": (lambda _folder: [sys.executable, RELATIVES, "children"], 3),
}


def told(out: str) -> dict[str, list[Any]]:
    """Return the truth of all processes together, each of which said one line."""
    parts = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    return {
        key: [x for part in parts for x in part[key]] for key in ("rows", "server_rows", "tgids")
    }


def check_all(trace: Traced) -> None:
    """Check every process's reads against the truth, and that each has an agent."""
    check_exact(trace)
    agents = {target["tgid"]: target["agent"] for target in trace.info["targets"]}
    told = trace.truth["tgids"]
    assert {tgid: agents.get(tgid) for tgid in told} == dict.fromkeys(told, "c")


@pytest.mark.parametrize("way", WAYS)
def test_every_process_is_in_one_trace(way: str, tmp_path: Path) -> None:
    """However a Python is started, its tasks are there, and each await is its task's."""
    command, processes = WAYS[way]
    run = [str(COMMAND), "run", "-o", str(tmp_path / "t"), "--", *command(tmp_path)]
    done = subprocess.run(
        run, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    trace = Traced(tmp_path / "t", told(done.stdout))
    assert len(set(trace.truth["tgids"])) == processes
    check_all(trace)
    if way == "children":
        (other,) = trace.query("SELECT tgid FROM thread WHERE comm = 'true' AND what = 2")
        (target,) = [t for t in trace.info["targets"] if t["tgid"] == other["tgid"]]
        assert target["agent"] == "none"


def test_in_a_container(tmp_path: Path) -> None:
    """With BPF and PERFMON beside what Docker leaves of root, inside a pid namespace."""
    keep = ",".join(f"+{name}" for name in (*DOCKER_CAPABILITIES, "bpf", "perfmon"))
    container = ["unshare", "--mount", "--pid", "--fork", "--mount-proc"]
    container += ["setpriv", f"--bounding-set=-all,{keep}"]
    run = [str(COMMAND), "run", "-o", str(tmp_path / "t"), "--", sys.executable, RELATIVES]
    done = subprocess.run(
        [*container, *run], env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    trace = Traced(tmp_path / "t", told(done.stdout))
    (target,) = trace.info["targets"]
    (inside,) = trace.truth["tgids"]
    assert target["tgid"] != inside
    for row in [*trace.truth["rows"], *trace.truth["server_rows"]]:
        row["tgid"] = target["tgid"]  # the machine's number, as in all of a trace
    trace.truth["tgids"] = [target["tgid"]]
    check_all(trace)


def test_a_process_in_a_container_is_named(tmp_path: Path) -> None:
    """The kernel's number is a stranger's in there; its own is known by its agent."""
    container = ["unshare", "--mount", "--pid", "--fork", "--mount-proc"]
    words = ["-c", "import asyncio; asyncio.run(asyncio.sleep(0.5))"]
    run = [str(COMMAND), "run", "-o", str(tmp_path / "t"), "--", sys.executable, *words]
    subprocess.run([*container, *run], capture_output=True, timeout=60, check=True)
    (target,) = Traced(tmp_path / "t", {}).info["targets"]
    assert target["argv"][1:] == words


@pytest.mark.parametrize("flag", ["-I", "-E", "-S"])
def test_without_its_start_hook_a_python_has_no_tasks_and_info_says_so(
    flag: str, tmp_path: Path
) -> None:
    """Flags that pass the start-up hook over are named; the traffic is recorded all the same."""
    # -I leaves the program's own folder out of sys.path, too
    streams = (
        f"import runpy, sys; sys.path.insert(0, {str(APPS)!r});"
        f" runpy.run_path({str(APPS / 'streams.py')!r}, run_name='__main__')"
    )
    run = [str(COMMAND), "run", "-o", str(tmp_path / "t"), "--", "/usr/bin/python3"]
    done = subprocess.run(
        [*run, flag, "-c", streams, "--tasks", "3"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    trace = Traced(tmp_path / "t", json.loads(done.stdout.splitlines()[-1]))
    (target,) = trace.info["targets"]
    assert target["agent"] == "none"
    assert flag in target["reason"]
    assert trace.tasks == []
    (moved,) = trace.query("SELECT sum(ret) AS n FROM syscall WHERE nr = 44 AND ret > 0")
    assert moved["n"] > sum(row["sent_bytes"] for row in trace.truth["rows"])


def uvicorn(port: int) -> list[str]:
    """Return uvicorn's console command: a supervisor that spawns two workers."""
    script = str(COMMAND.with_name("uvicorn"))
    options = ["--workers", "2", "--port", str(port), "--loop", "asyncio"]
    return [script, "asgi:app", *options, "--lifespan", "on", "--log-level", "warning"]


def on_uvloop(port: int) -> list[str]:
    """Return uvicorn's console command with uvloop: what it takes by itself where it is."""
    return [*uvicorn(port), "--loop", "uvloop"]


def gunicorn(port: int) -> list[str]:
    """Return gunicorn's console command: an arbiter that forks two uvicorn workers."""
    options = ["-k", "uvicorn.workers.UvicornH11Worker", "-w", "2", "-b", f"127.0.0.1:{port}"]
    return [str(COMMAND.with_name("gunicorn")), "asgi:app", *options]


@pytest.mark.parametrize("server", [uvicorn, on_uvloop, gunicorn])
def test_a_server_with_two_workers(server: Callable[[int], list[str]], tmp_path: Path) -> None:
    """Each request's task is in the trace, with the worker that served it, under one supervisor."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    run = [str(COMMAND), "run", "-o", str(tmp_path / "t"), "--", *server(port)]
    with subprocess.Popen(
        run, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            served = ask_both_workers(port)
        finally:
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=60)
    trace = Traced(tmp_path / "t", told(out))
    assert set(trace.truth["tgids"]) == set(served), err
    check_all(trace)
    requests = Counter(
        task["tgid"] for task in trace.tasks if task["coroutine"].endswith(".run_asgi")
    )
    assert requests == served
    supervisors = {target["tgid"] for target in trace.info["targets"]} - set(served)
    assert supervisors


def ask_both_workers(port: int, each: int = 7) -> Counter[int]:
    """Send requests until each of two workers answered some; return how many, by pid."""
    served: Counter[int] = Counter()
    deadline = time.monotonic() + 40
    while len(served) < 2 or min(served.values()) < each:
        assert time.monotonic() < deadline, served
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request("GET", "/")
            served[int(connection.getresponse().read())] += 1
        except ConnectionRefusedError:
            time.sleep(0.05)
        finally:
            connection.close()
    return served
