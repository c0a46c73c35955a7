"""The lab with a namespace of its own: what it makes is there, and is gone afterwards."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.netns, pytest.mark.postgres]

DEMOS = Path(__file__).resolve().parents[2] / "demos"
# Says what it made, then waits to be stopped; a shell or nohup may have had signals ignored.
HOLD = """
import json, os, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
sys.path.insert(0, sys.argv[1])
import lab
print("setting up", flush=True)
with lab.private_postgres("veth") as it:
    namespace = os.stat(f"/proc/{it.postmaster_pid}/ns/net").st_ino
    folder = os.path.dirname(os.readlink(f"/proc/{it.postmaster_pid}/cwd"))  # it works in data/
    facts = dict(pid=it.postmaster_pid, device=it.device, namespace=namespace, folder=folder)
    print(json.dumps(facts), flush=True)
    time.sleep(60)
"""


def hold() -> subprocess.Popen[str]:
    """Start a process that holds a lab; it is setting up when this returns."""
    command = [sys.executable, "-B", "-c", HOLD, str(DEMOS)]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert holder.stdout
    assert holder.stdout.readline() == "setting up\n"
    return holder


def facts_of(holder: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait until the lab is up; return what it is made of."""
    assert holder.stdout
    facts: dict[str, Any] = json.loads(holder.stdout.readline())
    return facts


def child_folders(pid: int) -> set[str]:
    """Return the lab folders that the children of a process work in."""
    found = set()
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        try:
            folder = Path(f"/proc/{child}/cwd").readlink()
        except OSError:
            continue
        if folder.name.startswith("awaitscope-lab-"):
            found.add(str(folder))
    return found


def gone(path: str, within_s: float = 10) -> bool:
    """Wait until a path no longer exists."""
    deadline = time.monotonic() + within_s
    while Path(path).exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_signal_in_the_block_removes_all(name: str) -> None:
    """A signal while the lab is in use removes the server, the device and the folder first."""
    with hold() as holder:
        facts = facts_of(holder)
        assert facts["namespace"] != Path("/proc/self/ns/net").stat().st_ino
        assert Path(f"/sys/class/net/{facts['device']}").exists()
        number = signal.Signals[name]
        holder.send_signal(number)
        code = holder.wait(20)
    assert code == (-number if number == signal.SIGINT else 128 + number)
    for path in (f"/proc/{facts['pid']}", f"/sys/class/net/{facts['device']}", facts["folder"]):
        assert not Path(path).exists(), path


def test_signal_during_set_up_removes_all() -> None:
    """A signal that comes before the server is up is kept, and obeyed with nothing left."""
    with hold() as holder:
        deadline = time.monotonic() + 20
        while not (folders := child_folders(holder.pid)) and time.monotonic() < deadline:
            time.sleep(0.005)
        assert folders
        holder.send_signal(signal.SIGTERM)
        output, _ = holder.communicate(timeout=30)
    assert holder.returncode == 128 + signal.SIGTERM
    assert output == ""
    assert not any(Path(folder).exists() for folder in folders)


def test_kill_leaves_no_server_and_no_device() -> None:
    """After SIGKILL the kernel ends the server and frees the namespace with its veth pair."""
    with hold() as holder:
        facts = facts_of(holder)
        holder.kill()
        holder.wait(20)
    assert gone(f"/sys/class/net/{facts['device']}")
    status = Path(f"/proc/{facts['pid']}/stat")
    assert not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z"
    assert Path(facts["folder"]).name.startswith("awaitscope-lab-")
    shutil.rmtree(facts["folder"])
