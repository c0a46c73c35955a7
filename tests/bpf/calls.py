"""Make a prime number of each system call that the probes record.

The last line of stdout is JSON: tgid, `pipe` (its two descriptors), `port` (of the listener) and
`counts` by name of the system call. Python's own reads and writes are on other descriptors.
"""

from __future__ import annotations

import json
import os
import select
import socket
import time

PRIME = 997


def main() -> None:
    """Exercise sockets, a pipe, epoll and the clock."""
    one, two = socket.socketpair()
    out, into = os.pipe()
    silent, _other = socket.socketpair()
    epoll = select.epoll()
    for _ in range(PRIME):
        one.send(b"sendto")
        two.recv(64)
        one.sendmsg([b"sendmsg"])
        two.recvmsg(64)
        os.write(into, b"write")
        os.read(out, 64)
        os.writev(into, [b"write", b"v"])
        os.readv(out, [bytearray(64)])
        epoll.register(silent, select.EPOLLIN)
        epoll.poll(0)
        epoll.unregister(silent)
        time.sleep(1e-6)
        select.select([], [], [], 0)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        for _ in range(PRIME // 7):
            with socket.create_connection(listener.getsockname()):
                listener.accept()[0].close()
    once = ("sendto", "recvfrom", "sendmsg", "recvmsg", "write", "read", "writev", "readv")
    once += ("epoll_wait", "clock_nanosleep", "pselect6")
    counts = {**dict.fromkeys(once, PRIME), "epoll_ctl": 2 * PRIME}
    counts |= dict.fromkeys(("connect", "accept4"), PRIME // 7)
    told = {"tgid": os.getpid(), "pipe": [out, into], "port": port, "counts": counts}
    print(json.dumps(told))


if __name__ == "__main__":
    main()
