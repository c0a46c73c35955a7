"""Talk over TCP between two processes without end, beside a storm of short-lived ones.

Prints our tids and ports. A child of the storm connects, says a byte and ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time


def storm(listener: socket.socket, parent: int) -> None:
    """Fork children that make a connection each, as long as the parent lives."""
    while os.getppid() == parent:
        if os.fork() == 0:
            with socket.create_connection(listener.getsockname()) as client:
                client.send(b"s")
            os._exit(0)
        listener.accept()[0].close()
        os.wait()
        time.sleep(0.001)


def main() -> None:
    """Say who we are, then send one byte to and fro until one of us is killed."""
    listener = socket.create_server(("127.0.0.1", 0))
    one = socket.create_connection(listener.getsockname())
    two, _address = listener.accept()
    parent = os.getpid()
    stormy = os.fork()
    if stormy == 0:
        storm(listener, parent)
        os._exit(0)
    child = os.fork()
    mine, theirs = (one, two) if child else (two, one)
    theirs.close()
    if child:
        ports = [one.getsockname()[1], one.getpeername()[1]]
        print(json.dumps({"tids": [parent, child, stormy], "ports": ports}), flush=True)
        mine.send(b"p")
    with contextlib.suppress(ConnectionError):  # the other was killed
        while data := mine.recv(1):
            mine.send(data)


if __name__ == "__main__":
    main()
