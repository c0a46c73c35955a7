"""Ways to hold an event loop. The guilty line of each says `# blocks: NAME`.

Those that only compute are made long enough for this machine before they are used.
"""

from __future__ import annotations

import ctypes
import gc
import hashlib
import http.server
import json
import os
import re
import socket
import tempfile
import threading
import time
import urllib.request
from functools import cache, partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LONG_S = 0.12
FILE_BYTES = 1 << 28
PATTERN = r"(a+)+$"


def sleep() -> None:
    """Sleep."""
    time.sleep(LONG_S)  # blocks: sleep


class _Late(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        """Answer late."""
        time.sleep(LONG_S)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@cache
def late_url() -> str:
    """Return the address of a web server whose answers are late."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Late)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/"


def request() -> None:
    """Ask a web server, without await."""
    try:
        import requests
    except ImportError:  # an interpreter without it
        urllib.request.urlopen(late_url()).read()  # blocks: request
        return
    requests.get(late_url())  # blocks: request


def password() -> None:
    """Hash a password as slowly as it should be."""
    try:
        import bcrypt
    except ImportError:  # an interpreter without it
        hashlib.scrypt(
            b"secret", salt=b"salt", n=1 << 15, r=8, p=2, maxmem=1 << 27
        )  # blocks: scrypt
        return
    bcrypt.hashpw(b"secret", SALT)  # blocks: password


SALT = b"$2b$11$" + b"abcdefghijklmnopqrstuu"


def _is_long(work: Callable[[Any], Any], subject: Any, seconds: float = LONG_S) -> bool:
    """Say whether some work takes so long on a CPU, whatever else that has to do."""
    began = time.thread_time()
    work(subject)
    return time.thread_time() - began > seconds


def _long_enough(
    make: Callable[[int], Any], work: Callable[[Any], Any], seconds: float = LONG_S
) -> Any:
    """Return the smallest subject of doubling sizes on which some work takes long."""
    size = 1
    while not _is_long(work, subject := make(size), seconds):
        size *= 2
    return subject


@cache
def document() -> str:
    """Return a document that takes 0.2 s to parse."""
    made = _long_enough(lambda n: json.dumps([{"a": [1, 2.5, "x"]}] * 1000 * n), json.loads, 0.2)
    return str(made)


def parse() -> None:
    """Parse a large document."""
    json.loads(document())  # blocks: parse


@cache
def awkward() -> str:
    """Return a text on which the pattern tries exponentially many ways."""
    text = "a" * 16
    while not _is_long(partial(re.match, PATTERN), text + "b"):
        text += "a"
    return text + "b"


def pattern() -> None:
    """Match a bad pattern."""
    re.match(PATTERN, awkward())  # blocks: pattern


def lookup() -> None:
    """Look a name up; /etc/resolv.conf must name a late server (see late_names.py)."""
    socket.gethostbyname("late.test")  # blocks: lookup


def _in_thread(work: Callable[[], None]) -> None:
    threading.Thread(target=work, daemon=True).start()


def lock() -> None:
    """Wait for a lock that another thread has."""
    taken, mutex = threading.Event(), threading.Lock()

    def hold() -> None:
        with mutex:
            taken.set()
            time.sleep(LONG_S)

    _in_thread(hold)
    taken.wait()
    with mutex:  # blocks: lock
        pass


def gil_in_one_piece() -> None:
    """Wait for the GIL while another thread sleeps with it."""
    held = ctypes.PyDLL(None)  # its functions are called with the GIL held
    ready = threading.Event()

    def hold() -> None:
        ready.wait()
        held.usleep(1_000_000)

    _in_thread(hold)
    ready.set()  # blocks: gil_in_one_piece
    end = time.monotonic() + 0.5  # blocks: gil_in_one_piece
    while time.monotonic() < end:  # blocks: gil_in_one_piece
        time.sleep(0)  # blocks: gil_in_one_piece


def gil_in_pieces() -> None:
    """Wait for the GIL again and again while another thread computes."""
    end = time.monotonic() + 1

    def compute() -> None:
        while time.monotonic() < end:
            pass

    _in_thread(compute)
    while time.monotonic() < end:  # blocks: gil_in_pieces
        time.sleep(0)  # blocks: gil_in_pieces


@cache
def garbage() -> list[Any]:
    """Return so many objects that to look through them takes long."""
    return list(_long_enough(_lists, lambda _kept: gc.collect()))


def _lists(size: int) -> list[Any]:
    return [[] for _ in range(100_000 * size)]


def collect() -> None:
    """Collect garbage."""
    gc.collect()  # blocks: collect


@cache
def cold_file() -> tuple[int, Iterator[int]]:
    """Return a file on a disk that is not in memory, and where to read it next."""
    with tempfile.TemporaryFile(dir="/var/tmp") as file:
        for _ in range(FILE_BYTES >> 20):
            file.write(os.urandom(1 << 20))
        os.fsync(file.fileno())
        fd = os.dup(file.fileno())
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)  # read nothing ahead
    return fd, iter(range(0, FILE_BYTES, 4096))


def disk() -> None:
    """Read a file that is not in memory."""
    (fd, places), end = cold_file(), time.monotonic() + LONG_S
    while time.monotonic() < end:
        os.pread(fd, 4096, next(places))  # blocks: disk


def first() -> None:
    """Be the first of two."""
    time.sleep(LONG_S)  # blocks: first


def second() -> None:
    """Be the second of two, soon after it."""
    end = time.monotonic() + LONG_S
    while time.monotonic() < end:  # blocks: second
        sum(range(100))  # blocks: second


SHORT_NS: list[int] = []  # when each one of many began


def short() -> None:
    """Be one of many."""
    SHORT_NS.append(time.monotonic_ns())
    time.sleep(0.005)


BLOCKS = {
    block.__name__: block
    for block in (
        sleep,
        request,
        password,
        parse,
        pattern,
        lookup,
        lock,
        gil_in_one_piece,
        gil_in_pieces,
        collect,
        disk,
    )
}


def prepare() -> None:
    """Make ready what the blocks need, so that they do nothing else."""
    gc.disable()  # garbage is collected only where that is the block
    request()
    document()
    garbage()
    awkward()
    cold_file()
    password()
