"""Hold more sockets open at once than the tracer's map has room for, and use each.

The last line of stdout is JSON: `tgid` and `sockets`, how many.
"""

from __future__ import annotations

import json
import os
import socket

PROCESSES, PAIRS = 90, 400  # each within the usual limit of open files


def hold() -> list[tuple[socket.socket, socket.socket]]:
    """Open the pairs of one process, and use both ends of each."""
    held = [socket.socketpair() for _ in range(PAIRS)]
    for one, other in held:
        one.send(b"x")
        other.recv(1)
    return held


def main() -> None:
    """Let each child say that it has its sockets, and keep them until all have."""
    said, saying = os.pipe()
    waiting, goes_on = os.pipe()
    for _ in range(PROCESSES):
        if not os.fork():
            os.close(goes_on)
            held = hold()
            os.write(saying, b"x")
            os.read(waiting, 1)
            os._exit(not held)
    for _ in range(PROCESSES):
        os.read(said, 1)
    os.close(goes_on)
    for _ in range(PROCESSES):
        assert os.wait()[1] == 0
    print(json.dumps({"tgid": os.getpid(), "sockets": 2 * PAIRS * PROCESSES}))


if __name__ == "__main__":
    main()
