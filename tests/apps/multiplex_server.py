"""The far side of multiplex.py: blocking sockets, answers shuffled and several in one write.

Run as a program it prints its port, serves one connection and then prints its writes as JSON.
"""

from __future__ import annotations

import json
import random
import select
import socket
import struct

HEADER = struct.Struct("!III")  # request id, length of this message, length of the wanted answer


def listen() -> socket.socket:
    """Return a listening socket on a free port of 127.0.0.1."""
    return socket.create_server(("127.0.0.1", 0))


def serve(listener: socket.socket, seed: int = 7, window_s: float = 0.002) -> list[list[int]]:
    """Serve one connection to its end; return the request ids answered by each write.

    Requests that arrive within `window_s` seconds of each other are answered in shuffled order,
    up to seven of them in one write.
    """
    rng = random.Random(seed)
    writes: list[list[int]] = []
    waiting: list[tuple[int, int]] = []
    buffer = b""
    connection, _address = listener.accept()
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            readable, _, _ = select.select([connection], [], [], window_s if waiting else None)
            if readable:
                data = connection.recv(65536)
                if not data:
                    return writes
                buffer += data
                while len(buffer) >= HEADER.size:
                    request, length, answer = HEADER.unpack_from(buffer)
                    if len(buffer) < length:
                        break
                    buffer = buffer[length:]
                    waiting.append((request, answer))
            if waiting and (not readable or len(waiting) >= 11):
                rng.shuffle(waiting)
                batch = [waiting.pop() for _ in range(min(rng.randint(1, 7), len(waiting)))]
                connection.sendall(
                    b"".join(HEADER.pack(r, size, 0).ljust(size, b"a") for r, size in batch)
                )
                writes.append([r for r, _size in batch])


if __name__ == "__main__":
    with listen() as here:
        print(here.getsockname()[1], flush=True)
        print(json.dumps(serve(here)), flush=True)
