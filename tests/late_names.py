"""A name server whose answers are late, for one command only."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# port 53 is fixed; the address differs, so that two runs of the tests do not meet
_ADDRESS = (f"127.77.{os.getpid() >> 8 & 255}.{os.getpid() & 255}", 53)
_LATE_S = 0.12


def _answers(server: socket.socket) -> None:
    """Answer each question with 127.0.0.1, until the socket is closed."""
    with contextlib.suppress(OSError):
        while True:
            query, peer = server.recvfrom(512)
            if not query:
                return
            time.sleep(_LATE_S)
            is_a = query[-4:-2] == b"\0\1"
            head = query[:2] + b"\x81\x80\0\1" + (b"\0\1" if is_a else b"\0\0") + bytes(4)
            answer = b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4\x7f\0\0\1" if is_a else b""
            server.sendto(head + query[12:] + answer, peer)


@contextlib.contextmanager
def late_names(folder: Path) -> Iterator[list[str]]:
    """Serve, and give what to put before a command (as root) so that it asks this server."""
    conf = folder / "resolv.conf"
    conf.write_text(f"nameserver {_ADDRESS[0]}\noptions timeout:5 attempts:1\n")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(_ADDRESS)
        thread = threading.Thread(target=_answers, args=(server,))
        thread.start()
        script = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'
        try:
            yield ["unshare", "--mount", "sh", "-c", script, str(conf)]
        finally:
            server.sendto(b"", _ADDRESS)
            thread.join()
