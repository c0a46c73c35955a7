"""Trio: streams between its own tasks, in a loop that awaitscope does not follow.

The last line of stdout is JSON: `sent` and `received`, the lengths of what the clients moved.
"""

from __future__ import annotations

import json

import trio

CLIENTS, CALLS = 3, 5
MOVED: dict[str, list[int]] = {"sent": [], "received": []}


async def serve(stream: trio.SocketStream) -> None:
    """Send back twice what comes."""
    async for data in stream:
        await stream.send_all(data * 2)


async def several(port: int, client: int) -> None:
    """Make calls one after the other."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        for call in range(CALLS):
            length = 1009 + 10 * client + call
            await stream.send_all(b"q" * length)
            left = 2 * length
            while left:
                left -= len(await stream.receive_some(left))
            MOVED["sent"].append(length)
            MOVED["received"].append(2 * length)


async def main() -> None:
    """Run the server and its clients."""
    async with trio.open_nursery() as servers:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        servers.start_soon(trio.serve_listeners, serve, [listener])
        port = listener.socket.getsockname()[1]
        async with trio.open_nursery() as clients:
            for client in range(CLIENTS):
                clients.start_soon(several, port, client)
        servers.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
    print(json.dumps(MOVED))
