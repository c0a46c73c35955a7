"""Ground truth: an aiohttp client session against an aiohttp server on the same loop.

Each request's body and answer have lengths that no other has. Behind the scenes the client lets a
task of its own write each request, and the server handles each in a task of the connection's.
See coded.py for the output.
"""

from __future__ import annotations

import aiohttp
import coded
from aiohttp import web
from truth import wait


async def handle(request: web.Request) -> web.Response:
    """Answer with as many bytes as the request asks for."""
    await request.read()
    return web.Response(body=b"a" * int(request.headers["X-Answer"]))


async def several(session: aiohttp.ClientSession, url: str, calls: int) -> None:
    """Post one request after the other."""
    for _ in range(calls):
        sent, recv = coded.lengths()
        with wait("post", sent=sent, recv=recv):
            async with session.post(url, data=b"q" * sent, headers={"X-Answer": str(recv)}) as got:
                assert len(await got.read()) == recv


async def main(tasks: int = 16, calls: int = 7) -> None:
    """Let all tasks share the session's connections."""
    app = web.Application(client_max_size=1 << 30)
    app.router.add_post("/", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    connector = aiohttp.TCPConnector(limit=4)
    async with aiohttp.ClientSession(connector=connector) as session:
        named = {
            f"aiohttp-{n:02d}": several(session, f"http://{host}:{port}/", calls)
            for n in range(tasks)
        }
        await coded.together(named)
    await runner.cleanup()


if __name__ == "__main__":
    coded.run(__doc__, main)
    coded.tell("aiohttp_both")
