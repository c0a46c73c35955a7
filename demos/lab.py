"""Start what a demo needs and leave nothing behind: a private PostgreSQL, one veth hop away.

    with private_postgres("veth") as lab:
        subprocess.run([sys.executable, "full_stack.py", "--dsn", lab.dsn])

The server runs in a second network namespace, so that its packets cross a device and arrive
through a softirq on the other side. The namespace is unnamed (lab_network.py says why): the server
is what keeps it, and the server goes with the thread that started it (PR_SET_PDEATHSIG). So even
after SIGKILL only the folder in the temporary directory stays.

Who can reach it: one role that is no superuser, by its name alone, from the demo's address.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal

sys.path.append(str(Path(__file__).parent))  # this file is also loaded by its path

from lab_cleanup import undisturbed
from lab_network import (
    CLONE_NEWIPC,
    CLONE_NEWNET,
    LOOPBACK,
    LabError,
    Link,
    call_libc,
    enter_namespace,
    join_namespace,
    second_namespace,
)

if TYPE_CHECKING:
    from contextlib import AbstractContextManager, ExitStack

__all__ = ["Lab", "LabError", "Link", "private_postgres", "second_namespace"]

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_ROLE = "demo"
_SETTINGS = {
    "unix_socket_directories": "",
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "shared_buffers": "16MB",
    "max_connections": "100",
    # Segments in the data folder go with it; those in /dev/shm would outlive a killed server.
    "dynamic_shared_memory_type": "mmap",
    "logging_collector": "off",
}


@dataclass(frozen=True)
class Lab:
    """Describe a running PostgreSQL: where it listens, and its first process."""

    dsn: str
    postmaster_pid: int
    link: Literal["veth", "lo"]
    device: str
    local_ip: str
    peer_ip: str
    peer_port: int
    server_version: str


@dataclass(frozen=True)
class _Place:
    """Say where the server's programs run: as whom (None: as ourselves), in which folder."""

    account: pwd.struct_passwd | None
    folder: Path
    netns_fd: int | None


def private_postgres(link: Literal["veth", "lo"] | None = "veth") -> AbstractContextManager[Lab]:
    """Return a context manager that starts a PostgreSQL of our own, and removes all of it.

    `link` None means a veth pair where the kernel allows one, else loopback. Do not leave the
    thread that enters: the server is told to quit when that thread ends.
    """
    return undisturbed(lambda stack: _set_up(stack, link))


def _set_up(stack: ExitStack, link: Literal["veth", "lo"] | None) -> Lab:
    binaries, version = _find_server()
    account = _find_account()
    way = _choose_link(stack, link)
    place = _Place(account, _make_folder(account), way.netns_fd)
    stack.callback(_remove_folder, place.folder)
    data, log = place.folder / "data", place.folder / "log"
    _initialise(binaries, data, way, place)
    port = 5432 if way.kind == "veth" else _free_port(way.peer_ip)
    settings = {**_SETTINGS, "listen_addresses": way.peer_ip, "port": str(port)}
    command = [str(binaries / "postgres"), "-D", str(data)]
    command += [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
    with log.open("wb") as talk:
        server = _spawn(place, command, talk, signal.SIGQUIT)
    stack.callback(_stop, server)
    _wait_ready(server, way.peer_ip, port, log)
    dsn = f"postgresql://{_ROLE}@{way.peer_ip}:{port}/postgres?sslmode=disable"
    return Lab(dsn, server.pid, way.kind, way.device, way.ip, way.peer_ip, port, version)


def _find_server() -> tuple[Path, str]:
    """Return the newest installed server's folder and its major version."""
    found = [
        folder
        for folder in Path("/usr/lib/postgresql").glob("*/bin")
        # The client's package has this folder too, with psql alone.
        if all(os.access(folder / name, os.X_OK) for name in ("initdb", "postgres"))
    ]
    if not found:
        raise LabError(
            "No PostgreSQL server is installed (looked in /usr/lib/postgresql/*/bin).",
            "Install it: sudo apt-get install postgresql; or name one that runs: --dsn DSN.",
        )
    newest = max(found, key=lambda folder: [int(part) for part in folder.parent.name.split(".")])
    return newest, newest.parent.name


def _find_account() -> pwd.struct_passwd | None:
    """Return the account to run as; None means ours, which is not root's."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            return pwd.getpwnam(name)
    raise LabError(
        "PostgreSQL refuses to run as root, and there is no user postgres or nobody.",
        "Create one: sudo useradd --system postgres.",
    )


def _choose_link(stack: ExitStack, link: Literal["veth", "lo"] | None) -> Link:
    if link == "lo":
        return LOOPBACK
    try:
        return join_namespace(stack)
    except LabError:
        if link == "veth":
            raise
        return LOOPBACK


def _make_folder(account: pwd.struct_passwd | None) -> Path:
    # Root's TMPDIR may be a folder that the server's account cannot enter.
    folder = Path(tempfile.mkdtemp(prefix="awaitscope-lab-", dir="/tmp" if account else None))
    if account:
        os.chown(folder, account.pw_uid, account.pw_gid)
    return folder


def _remove_folder(folder: Path) -> None:
    for _ in range(20):  # a process on its way out may still write a last file
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.05)
    shutil.rmtree(folder)


def _initialise(binaries: Path, data: Path, way: Link, place: _Place) -> None:
    """Create the data folder, and the one role that may come in."""
    initdb = f"{binaries}/initdb -D {data} -U owner --auth=reject --no-locale -E UTF8 --no-sync"
    _run(place, initdb.split())
    data.joinpath("pg_hba.conf").write_text(f"host postgres {_ROLE} {way.ip}/32 trust\n")
    # Single-user mode, a statement on each line: so no superuser ever listens on the network.
    statements = f"CREATE ROLE {_ROLE} LOGIN\nGRANT CREATE ON DATABASE postgres TO {_ROLE}\n"
    _run(place, f"{binaries}/postgres --single -F -D {data} postgres".split(), statements)


def _run(place: _Place, command: list[str], text: str = "") -> None:
    """Run one of the server's programs to its end."""
    with tempfile.TemporaryFile() as talk:
        process = _spawn(place, command, talk, signal.SIGTERM, subprocess.PIPE)
        try:
            process.communicate(text.encode(), timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        if process.returncode != 0:
            talk.seek(0)
            raise _did_not_start(Path(command[0]).name, talk.read())


def _spawn(
    place: _Place,
    command: list[str],
    talk: IO[bytes],
    end_signal: signal.Signals,
    stdin: int = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """Start a program in its place; the kernel sends it `end_signal` when our thread ends."""
    parent = os.getpid()

    def enter() -> None:
        if place.netns_fd is not None:
            enter_namespace(CLONE_NEWNET, place.netns_fd)
        with suppress(OSError):  # System V memory of a killed server then goes with it
            enter_namespace(CLONE_NEWIPC)
        if place.account:
            os.setgroups([place.account.pw_gid])
            os.setgid(place.account.pw_gid)
            os.setuid(place.account.pw_uid)
        call_libc("prctl", _PR_SET_PDEATHSIG, end_signal)  # after setuid, which clears it
        if os.getppid() != parent:
            os._exit(1)

    return subprocess.Popen(
        command,
        stdin=stdin,
        stdout=talk,
        stderr=talk,
        cwd=place.folder,
        env={"PATH": "/usr/bin:/bin", "HOME": str(place.folder), "LC_ALL": "C"},
        # Its own session: Ctrl-C at the terminal is for us, who stop the server in order.
        start_new_session=True,
        preexec_fn=enter,  # noqa: PLW1509 - system calls only; no other way into a namespace
    )


def _stop(server: subprocess.Popen[bytes]) -> None:
    """Stop the server: a fast shutdown, an immediate one, then SIGKILL for all of it."""
    for number in (signal.SIGINT, signal.SIGQUIT):
        server.send_signal(number)
        with suppress(subprocess.TimeoutExpired):
            server.wait(4)
            return
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    for pid in (server.pid, *map(int, children)):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    server.wait()


def _free_port(ip: str) -> int:
    with socket.create_server((ip, 0)) as listener:
        return int(listener.getsockname()[1])


def _wait_ready(server: subprocess.Popen[bytes], ip: str, port: int, log: Path) -> None:
    deadline = time.monotonic() + 15
    while not _lets_in(ip, port):
        if server.poll() is not None or time.monotonic() > deadline:
            raise _did_not_start("postgres", log.read_bytes() or b"no answer on its port")
        time.sleep(0.01)


def _lets_in(ip: str, port: int) -> bool:
    """Log in as the traced program will, and see whether we may."""
    words = f"user\0{_ROLE}\0database\0postgres\0\0".encode()
    startup = struct.pack("!ii", 8 + len(words), 3 << 16) + words
    try:
        with socket.create_connection((ip, port), timeout=2) as connection:
            connection.sendall(startup)
            answer = connection.recv(10, socket.MSG_WAITALL)
    except OSError:
        return False
    # AuthenticationOk (9 bytes), then a ParameterStatus: an unknown role gets an error.
    return answer[:1] == b"R" and answer[9:] == b"S"


def _did_not_start(program: str, talk: bytes) -> LabError:
    tail = "\n".join(talk.decode(errors="replace").strip().splitlines()[-5:])
    return LabError(
        f"The private PostgreSQL did not start: {program} said:\n{tail}",
        "Name a server that runs with --dsn DSN, or try --link lo.",
    )
