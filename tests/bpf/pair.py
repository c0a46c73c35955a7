"""Talk over TCP between two processes without end; print our tids, ports and socket inodes."""

from __future__ import annotations

import json
import os
import socket


def main() -> None:
    """Say who we are, then send one byte to and fro until one of us is killed."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        two, _address = listener.accept()
    child = os.fork()
    mine, theirs = (one, two) if child else (two, one)
    theirs.close()
    if child:
        ports = [one.getsockname()[1], one.getpeername()[1]]
        print(json.dumps({"tids": [os.getpid(), child], "ports": ports}), flush=True)
        mine.send(b"p")
    while data := mine.recv(1):
        mine.send(data)


if __name__ == "__main__":
    main()
