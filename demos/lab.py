"""Set up what a demo needs and leave nothing behind: a private PostgreSQL, one veth hop away.

    with private_postgres("veth") as lab:
        subprocess.run([sys.executable, "full_stack.py", "--dsn", lab.dsn])

The server runs in a second network namespace, joined to this one by a veth pair, so that its
packets cross a device and arrive through a softirq on the other side. The namespace has no name:
a file descriptor of this process holds it until the server is in it, then the server does. A
named one lives in /run/netns until somebody deletes it; this one the kernel frees, with its veth,
when the server is gone, and the server goes with the thread that started it (PR_SET_PDEATHSIG).
So even after SIGKILL only the folder in the temporary directory stays.

This file needs Python 3.11, pyroute2 (for the veth pair) and Debian's `postgresql`.
"""

from __future__ import annotations

import ctypes
import errno
import ipaddress
import os
import pwd
import random
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

_CLONE_NEWIPC = 0x08000000  # linux/sched.h
_CLONE_NEWNET = 0x40000000
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# 198.18.0.0/15 is set aside for benchmarks: it is free where a VPN routes all of 10.0.0.0/8.
_POOLS = ("10.0.0.0/8", "198.18.0.0/15")
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
_libc = ctypes.CDLL(None, use_errno=True)


class LabError(Exception):
    """The lab cannot be set up here; `fix` says what to do about it."""

    def __init__(self, message: str, fix: str) -> None:
        """Store one sentence for people and the way out."""
        super().__init__(f"{message}\n{fix}")
        self.message = message
        self.fix = fix


@dataclass(frozen=True)
class Link:
    """Name both ends of the way to the server; `netns_fd` is None where there is one namespace."""

    kind: Literal["veth", "lo"]
    device: str
    ip: str
    peer_device: str
    peer_ip: str
    netns_fd: int | None


@dataclass(frozen=True)
class Lab:
    """Describe a running PostgreSQL: where it listens, and its first process."""

    dsn: str
    postmaster_pid: int
    device: str
    local_ip: str
    peer_ip: str
    peer_port: int
    link: Literal["veth", "lo"]
    server_version: str


@contextmanager
def private_postgres(link: Literal["veth", "lo"] | None = "veth") -> Iterator[Lab]:
    """Start a PostgreSQL of our own, yield it, and remove every trace of it.

    `link` None means a veth pair where the kernel allows one, else loopback. Stay in the thread
    that entered: the server is told to quit when that thread ends. SIGTERM and SIGHUP become
    SystemExit inside the block if nobody else handles them.
    """
    with _unwind_on_signals(), ExitStack() as stack:
        binaries, version = _find_postgres()
        account = _server_account()
        way = _choose_link(link, stack)
        folder = _acquire(stack, lambda: _make_folder(account), _remove_folder)
        data = folder / "data"
        _initialise(binaries, data, way, account)
        port = 5432 if way.netns_fd is not None else _free_port(way.peer_ip)
        settings = {**_SETTINGS, "listen_addresses": way.peer_ip, "port": str(port)}
        command = [str(binaries / "postgres"), "-D", str(data)]
        command += [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        log = folder / "log"
        with log.open("wb") as talk:
            server = _acquire(
                stack,
                lambda: _spawn(command, account, folder, way.netns_fd, talk, signal.SIGQUIT),
                _stop,
            )
        _wait_ready(server, way.peer_ip, port, log)
        yield Lab(
            dsn=f"postgresql://{_ROLE}@{way.peer_ip}:{port}/postgres?sslmode=disable",
            postmaster_pid=server.pid,
            device=way.device,
            local_ip=way.ip,
            peer_ip=way.peer_ip,
            peer_port=port,
            link=way.kind,
            server_version=version,
        )


@contextmanager
def second_namespace() -> Iterator[Link]:
    """Make an unnamed network namespace joined to this one by a veth pair, both ends up."""
    try:
        from pyroute2 import IPRoute  # noqa: PLC0415 - a loopback lab does without it
    except ImportError as error:
        raise LabError(
            "pyroute2, which makes the veth pair, is not installed.",
            "Install it (pip install pyroute2), or run the demo with --link lo.",
        ) from error
    with ExitStack() as stack:
        try:
            netns_fd = _acquire(stack, _new_netns, os.close)
            with IPRoute() as routes:
                network = _free_network(routes)
            ip, peer_ip = (str(host) for host in network.hosts())
            tag = secrets.token_hex(3)
            way = Link("veth", f"as-{tag}-app", ip, f"as-{tag}-db", peer_ip, netns_fd)
            _acquire(stack, lambda: _join(IPRoute, way), lambda _: _unlink(IPRoute, way.device))
        except OSError as error:
            raise _refused(error.strerror or str(error)) from error
        except Exception as error:
            # pyroute2 raises its own NetlinkError(code, text), which is no OSError.
            if type(error).__name__ != "NetlinkError":
                raise
            raise _refused(str(error)) from error
        yield way


def _choose_link(link: str | None, stack: ExitStack) -> Link:
    if link != "lo":
        try:
            return stack.enter_context(second_namespace())
        except LabError:
            if link == "veth":
                raise
    return Link("lo", "lo", "127.0.0.1", "lo", "127.0.0.1", None)


def _refused(why: str) -> LabError:
    return LabError(
        f"This machine allows no second network namespace with a veth pair: {why}.",
        "Run as root (in a container: with --privileged), or run the demo with --link lo.",
    )


def _call(name: str, *arguments: int) -> None:
    """Call a libc function that returns -1 and sets errno when it fails."""
    if getattr(_libc, name)(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), name)


def _in_thread(work: Callable[[], Any]) -> Any:  # noqa: ANN401 - returns what `work` returns
    """Run `work` in a thread of its own, whose change of namespace ends with it."""
    outcome: list[Any] = []

    def body() -> None:
        try:
            outcome.append(work())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


def _new_netns() -> int:
    """Return a close-on-exec descriptor that is all that holds a new network namespace."""

    def unshare() -> int:
        _call("unshare", _CLONE_NEWNET)
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    return int(_in_thread(unshare))


def _free_network(ip: Any) -> ipaddress.IPv4Network:  # noqa: ANN401 - pyroute2's IPRoute
    """Pick a /30 that overlaps no route of this namespace except the default one."""
    taken = []
    for route in ip.get_routes(family=socket.AF_INET):
        destination = route.get_attr("RTA_DST")
        if destination and route["dst_len"]:
            taken.append(ipaddress.ip_network(f"{destination}/{route['dst_len']}", strict=False))
    for pool in map(ipaddress.IPv4Network, _POOLS):
        for _ in range(64):
            offset = random.randrange(pool.num_addresses // 4) * 4  # noqa: S311 - no secret
            network = ipaddress.IPv4Network((pool[offset], 30))
            if not any(network.overlaps(other) for other in taken):
                return network
    raise OSError(errno.EADDRNOTAVAIL, f"no free /30 in {' or '.join(_POOLS)}")


def _join(iproute: Any, way: Link) -> None:  # noqa: ANN401 - pyroute2's class, imported late
    assert way.netns_fd is not None
    peer = {"ifname": way.peer_device, "net_ns_fd": way.netns_fd}
    with iproute() as ip:
        ip.link("add", ifname=way.device, kind="veth", peer=peer)
        try:
            _raise_device(ip, way.device, way.ip)
            _in_thread(lambda: _raise_peer(iproute, way))
        except BaseException:
            ip.link("del", ifname=way.device)
            raise


def _raise_peer(iproute: Any, way: Link) -> None:  # noqa: ANN401
    assert way.netns_fd is not None
    _call("setns", way.netns_fd, _CLONE_NEWNET)
    with iproute() as ip:
        _raise_device(ip, way.peer_device, way.peer_ip)
        ip.link("set", ifname="lo", state="up")


def _raise_device(ip: Any, device: str, address: str) -> None:  # noqa: ANN401
    index = ip.link_lookup(ifname=device)[0]
    ip.addr("add", index=index, address=address, prefixlen=30)
    ip.link("set", index=index, state="up")


def _unlink(iproute: Any, device: str) -> None:  # noqa: ANN401
    """Delete the veth pair now, rather than when the kernel gets to freeing the namespace."""
    with iproute() as ip:
        for index in ip.link_lookup(ifname=device):
            ip.link("del", index=index)


def _find_postgres() -> tuple[Path, str]:
    """Return the newest installed server's folder and its major version."""
    found = [
        folder
        for folder in Path("/usr/lib/postgresql").glob("*/bin")
        if all(os.access(folder / name, os.X_OK) for name in ("initdb", "postgres"))
    ]
    if not found:
        raise LabError(
            "No PostgreSQL server is installed (looked in /usr/lib/postgresql/*/bin).",
            "Install it: sudo apt-get install postgresql; or name one that runs: --dsn DSN.",
        )
    newest = max(found, key=lambda folder: [int(n) for n in folder.parent.name.split(".")])
    return newest, newest.parent.name


def _server_account() -> pwd.struct_passwd | None:
    """Return the account to run as; None means ours, which is not root's."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise LabError(
        "PostgreSQL refuses to run as root, and there is no user postgres or nobody.",
        "Create one: sudo useradd --system postgres.",
    )


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


def _initialise(
    binaries: Path, data: Path, way: Link, account: pwd.struct_passwd | None
) -> None:
    """Create the data folder, and the one role that may come in, which is no superuser."""
    initdb = f"{binaries}/initdb -D {data} -U owner --auth=reject --no-locale -E UTF8 --no-sync"
    _run(initdb.split(), account, data.parent)
    data.joinpath("pg_hba.conf").write_text(f"host postgres {_ROLE} {way.ip}/32 trust\n")
    # Single-user mode: each line is a statement, and no superuser ever listens on the network.
    statements = f"CREATE ROLE {_ROLE} LOGIN\nGRANT CREATE ON DATABASE postgres TO {_ROLE}\n"
    single = f"{binaries}/postgres --single -F -D {data} postgres"
    _run(single.split(), account, data.parent, statements)


def _run(
    command: list[str], account: pwd.struct_passwd | None, folder: Path, text: str = ""
) -> None:
    """Run a short step to its end: a server program cut off leaves shared memory behind."""
    with tempfile.TemporaryFile() as talk, _signals_held():
        process = _spawn(command, account, folder, None, talk, signal.SIGTERM, subprocess.PIPE)
        try:
            process.communicate(text.encode(), timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        if process.returncode != 0:
            talk.seek(0)
            raise _failed(Path(command[0]).name, talk.read())


def _spawn(
    command: list[str],
    account: pwd.struct_passwd | None,
    folder: Path,
    netns_fd: int | None,
    talk: IO[bytes],
    end_signal: signal.Signals,
    stdin: int = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """Start a process of the server's account, in its namespaces, that ends with our thread."""
    parent = os.getpid()

    def enter() -> None:
        if netns_fd is not None:
            _call("setns", netns_fd, _CLONE_NEWNET)
        with suppress(OSError):  # System V memory of a killed server then goes with it
            _call("unshare", _CLONE_NEWIPC)
        if account:
            os.setgroups([account.pw_gid])
            os.setgid(account.pw_gid)
            os.setuid(account.pw_uid)
        _call("prctl", _PR_SET_PDEATHSIG, end_signal)  # after setuid, which clears it
        if os.getppid() != parent:
            os._exit(1)

    return subprocess.Popen(  # noqa: S603 - our own command line
        command,
        stdin=stdin,
        stdout=talk,
        stderr=talk,
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder), "LC_ALL": "C"},
        # Its own session: Ctrl-C at the terminal is for us alone, we stop the server in order.
        start_new_session=True,
        preexec_fn=enter,  # noqa: PLW1509 - system calls only; no other way to enter a netns
    )


def _stop(server: subprocess.Popen[bytes]) -> None:
    """Stop the server: a fast shutdown, an immediate one, then SIGKILL for all of it."""
    for number in (signal.SIGINT, signal.SIGQUIT):
        server.send_signal(number)
        try:
            server.wait(4)
        except subprocess.TimeoutExpired:
            continue
        return
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    for pid in (server.pid, *map(int, children)):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    server.wait()


def _free_port(ip: str) -> int:
    with socket.create_server((ip, 0)) as listener:
        return int(listener.getsockname()[1])


def _wait_ready(server: subprocess.Popen[bytes], ip: str, port: int, log: Path) -> None:
    deadline = time.monotonic() + 15
    while not _accepts(ip, port):
        if server.poll() is not None or time.monotonic() > deadline:
            raise _failed("postgres", log.read_bytes() or b"no answer on its port")
        time.sleep(0.01)


def _accepts(ip: str, port: int) -> bool:
    """Log in as the demo's role, as the traced program will, and see whether we may."""
    words = f"user\0{_ROLE}\0database\0postgres\0\0".encode()
    startup = struct.pack("!ii", 8 + len(words), 3 << 16) + words
    try:
        with socket.create_connection((ip, port), timeout=2) as connection:
            connection.sendall(startup)
            answer = connection.recv(10, socket.MSG_WAITALL)
            # AuthenticationOk (9 bytes), then a ParameterStatus: an unknown role gets an error.
            return answer[:1] == b"R" and answer[9:] == b"S"
    except OSError:
        return False


def _failed(program: str, talk: bytes) -> LabError:
    tail = "\n".join(talk.decode(errors="replace").strip().splitlines()[-5:])
    return LabError(f"The private PostgreSQL did not start: {program} said:\n{tail}",
                    "Name a server that runs with --dsn DSN, or try --link lo.")


def _acquire(stack: ExitStack, take: Callable[[], Any], release: Callable[[Any], None]) -> Any:  # noqa: ANN401
    """Take something and register its release; no signal comes between the two, nor into it."""

    def release_undisturbed(thing: Any) -> None:  # noqa: ANN401
        with _signals_held():
            release(thing)

    with _signals_held():
        thing = take()
        stack.callback(release_undisturbed, thing)
    return thing


@contextmanager
def _signals_held() -> Iterator[None]:
    """Put off SIGINT, SIGTERM and SIGHUP until the block is done (in the main thread)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    late: list[int] = []
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number in _SIGNALS:
        signal.signal(number, lambda came, _frame: late.append(came))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        for number in late:
            signal.raise_signal(number)


@contextmanager
def _unwind_on_signals() -> Iterator[None]:
    """Make SIGTERM and SIGHUP raise, as SIGINT does, so that every `with` block cleans up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    unhandled = [n for n in _SIGNALS[1:] if signal.getsignal(n) is signal.SIG_DFL]
    for number in unhandled:
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number in unhandled:
            signal.signal(number, signal.SIG_DFL)
