"""The loads that say what each of their awaits moved, and the servers that some of them need."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tracer.cli.demo import load_script

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Load:
    """A program in tests/apps: the packages it imports, what it must be given, its arguments.

    `since` is the first CPython that it runs on.
    """

    packages: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    app: str = ""
    arguments: tuple[str, ...] = ()
    since: tuple[int, int] = (3, 9)


LOADS = {
    "plain_sockets": Load(),
    "pipes": Load(),
    "cancel_storm": Load(),
    "churn": Load(),
    "to_thread": Load(),
    "tls_streams": Load(needs=("certificate",)),
    "httpx_pool": Load(("httpx",)),
    "http2_streams": Load(("httpx", "h2")),
    "anyio_streams": Load(("anyio",)),
    "aiohttp_both": Load(("aiohttp",)),
    "websockets_both": Load(("websockets",)),
    "redis_pool": Load(("redis",), ("redis",)),
    "psycopg_tasks": Load(("psycopg[binary]",), ("dsn",)),
}
# those that test_ground_truth.py and test_loops.py have, too
OTHER_LOADS = {
    "streams": Load(),
    "asyncpg_pool": Load(("asyncpg",), ("dsn",), app="pool"),
    "multiplex": Load(),
    "background_reader": Load(app="multiplex", arguments=("--reader", "task")),
    "two_loops": Load(app="loops", arguments=("threads",)),
    "fork_after_start": Load(app="loops", arguments=("fork",)),
    "eager": Load(app="loops", arguments=("eager",), since=(3, 12)),
}


@dataclass
class Peers:
    """Servers and files for loads, made when first asked for, gone with `peers`."""

    folder: Path
    stack: ExitStack
    made: dict[str, str] = field(default_factory=dict)

    def options(self, load: Load) -> list[str]:
        """Return the arguments that a load needs."""
        makers = {"redis": self._redis, "dsn": self._dsn, "certificate": self._certificate}
        for need in load.needs:
            if need not in self.made:
                self.made[need] = makers[need]()
        return [part for need in load.needs for part in (f"--{need}", self.made[need])]

    def _redis(self) -> str:
        """Start Debian's redis; its tools hold the server's program under another name."""
        program = shutil.which("redis-server") or shutil.which("redis-check-rdb")
        assert program, "no redis: apt-get install redis-tools"
        server = self.folder / "redis-server"
        server.symlink_to(Path(program).resolve())
        port = free_port()
        options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", self.folder]
        process = subprocess.Popen([server, *options], stdout=subprocess.DEVNULL)
        self.stack.callback(process.wait)
        self.stack.callback(process.terminate)
        wait_for_port(port)
        return str(port)

    def _dsn(self) -> str:
        lab = load_script(ROOT / "demos" / "lab.py")
        return str(self.stack.enter_context(lab.private_postgres("lo")).dsn)

    def _certificate(self) -> str:
        path = str(self.folder / "localhost.pem")
        new = ["openssl", "req", "-x509", "-nodes", "-newkey", "rsa:2048", "-days", "2"]
        names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
        command = [*new, *names, "-keyout", path, "-out", path + ".crt"]
        subprocess.run(command, check=True, capture_output=True)
        with Path(path).open("a") as file:
            file.write(Path(path + ".crt").read_text())
        return path


@contextmanager
def peers(folder: Path) -> Iterator[Peers]:
    """Give the servers that loads need."""
    with ExitStack() as stack:
        yield Peers(folder, stack)


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody uses now."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def wait_for_port(port: int, seconds: float = 20) -> None:
    """Wait until somebody listens."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    raise TimeoutError(f"nobody listens on port {port}")
